from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from fedai.meta_analysis import random_effects


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 12))
    variances = rng.uniform(0.01, 0.3, k)
    return rng.normal(1, rng.uniform(0, 1), k) + rng.normal(size=k) * np.sqrt(variances), variances


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_is_statsmodels_paule_mandel_and_hartung_knapp(seed: int) -> None:
    effects, variances = draw(seed)
    ours = random_effects(effects, variances)
    theirs = combine_effects(effects, variances, method_re="iterated", use_t=True, atol=1e-10, maxiter=100)
    assert ours is not None
    if ours.tau:
        weights = 1 / (variances + ours.tau**2)
        q = (weights * (effects - np.average(effects, weights=weights)) ** 2).sum()
        assert q == pytest.approx(len(effects) - 1, abs=1e-8)
        if theirs.tau2 == 0:
            return  # statsmodels 0.15 falls back to 0 where rounding takes its last step beyond the root
    assert ours.tau**2 == pytest.approx(theirs.tau2, abs=1e-8)
    assert ours.estimate == pytest.approx(theirs.mean_effect_re, abs=1e-8)
    assert ours.q == pytest.approx(theirs.q, abs=1e-8)
    assert ours.i2 == pytest.approx(max(0.0, theirs.i2), abs=1e-8)
    plain, hartung_knapp = theirs.sd_eff_w_re, theirs.sd_eff_w_re_hksj
    assert ours.se == pytest.approx(max(plain, hartung_knapp), abs=1e-8)
    interval = theirs.conf_int(use_t=True)[1 if ours.se == pytest.approx(plain, abs=1e-12) else 3]
    assert ours.ci95 == pytest.approx(tuple(float(end) for end in interval[:2]), abs=1e-8)


def test_a_further_hospital_varies_more_than_the_mean_of_hospitals() -> None:
    found = random_effects([0.2, 0.9, 1.4, 2.1], [0.05, 0.05, 0.08, 0.04])
    assert found is not None
    assert found.prediction95 is not None
    assert found.prediction95[0] < found.ci95[0] < found.ci95[1] < found.prediction95[1]
    assert found.i2 > 0.5


def test_sites_alike_are_not_narrower_than_a_common_effect() -> None:
    found = random_effects([1.0, 1.0, 1.0], [0.1, 0.1, 0.1])
    assert found is not None
    assert (found.tau, found.i2, found.q) == (0.0, 0.0, 0.0)
    assert found.se == pytest.approx(np.sqrt(0.1 / 3))


def test_two_sites_have_no_prediction_and_one_has_nothing() -> None:
    pair = random_effects([0.0, 1.0], [0.1, 0.2])
    assert pair is not None
    assert pair.prediction95 is None
    assert random_effects([0.3], [0.1]) is None
    assert random_effects([], []) is None


@pytest.mark.parametrize(
    ("effects", "variances"), [([np.nan, 1], [1, 1]), ([0, 1], [0, 1]), ([0, 1], [1, -1])]
)
def test_effects_without_a_variance_are_a_mistake_of_the_caller(effects, variances) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="variances above zero"):
        random_effects(effects, variances)
