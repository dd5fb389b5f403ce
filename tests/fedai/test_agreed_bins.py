from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fedai.agreed_bins import SHARE, Bins, agree, auroc_bound, order_keys
from fedai.metrics import ScoreHistogram

FINITE = st.floats(allow_nan=False, allow_infinity=False)
Site = tuple[NDArray[np.float64], NDArray[np.bool_]]


def agreed(sites: list[Site]) -> tuple[float, float, Bins, int]:
    """AUROC, its bound, the bins, and how many rounds it took."""
    keys = [order_keys(scores) for scores, _ in sites]
    asked = []

    def count(bins: Bins) -> NDArray[np.int64]:
        asked.append(bins)
        answers = [bins.count(k, positive) for k, (_, positive) in zip(keys, sites, strict=True)]
        return functools.reduce(operator.add, answers)

    bins, counts = agree(count)
    return float(ScoreHistogram(counts[None]).auroc()[0]), auroc_bound(counts, bins), bins, len(asked)


def raw(sites: list[Site]) -> float:
    positive = np.concatenate([p for _, p in sites])
    return float(roc_auc_score(positive, np.concatenate([s for s, _ in sites])))


def draw(seed: int) -> list[Site]:
    """One to five sites of 20 to 800 cases; logits, probabilities, rounded or saturated ones."""
    rng = np.random.default_rng(seed)
    form = rng.integers(5)
    sites: list[Site] = []
    for _ in range(rng.integers(1, 6)):
        n = int(np.exp(rng.uniform(np.log(20), np.log(800))))
        positive = rng.random(n) < rng.uniform(0.02, 0.6)
        positive[:2] = [True, False]
        x = rng.normal(size=n) * rng.uniform(0.5, 8) + rng.uniform(0, 6) * positive
        p = 1 / (1 + np.exp(-x))
        forms = [x, p, np.round(p, 2), p.astype(np.float32).astype(np.float64), -1e300 + 1e299 * x]
        sites.append((np.asarray(forms[form], dtype=np.float64), positive))
    return sites


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_pooled_auroc_is_within_its_bound_of_the_raw_rows_and_the_bound_is_small(seed: int) -> None:
    sites = draw(seed)
    value, bound, _, rounds = agreed(sites)
    assert abs(value - raw(sites)) <= bound + 1e-12
    assert bound <= 1 / SHARE < 0.001
    assert rounds <= 8


def test_the_bound_holds_where_bins_hold_many_cases() -> None:
    rng = np.random.default_rng(4)
    sites = []
    for _ in range(3):
        positive = rng.random(20_000) < 0.05
        sites.append((rng.normal(size=20_000) + 1.5 * positive, positive))
    value, bound, bins, _ = agreed(sites)
    assert 0 < abs(value - raw(sites)) <= bound <= 1 / SHARE
    assert len(bins.starts) < 60_000


@given(st.lists(st.tuples(FINITE, st.booleans()), min_size=2, max_size=60))
def test_few_scores_of_any_range_are_ordered_exactly_with_ties_as_ties(
    rows: list[tuple[float, bool]],
) -> None:
    scores = np.array([r[0] for r in rows])
    positive = np.array([r[1] for r in rows])
    positive[:2] = [True, False]
    value, bound, _, _ = agreed([(scores, positive)])
    assert bound == 0
    assert value == pytest.approx(np.mean(_kernel(scores, positive)), abs=1e-12)


def _kernel(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    x, y = scores[positive][:, None], scores[~positive][None, :]
    return np.asarray((x > y) + 0.5 * (x == y))


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_keys_are_in_the_order_of_the_scores(values: list[float]) -> None:
    keys, scores = order_keys(values), np.array(values)
    order = np.argsort(keys, kind="stable")
    assert (np.diff(scores[order]) >= 0).all()
    same_key, same_score = np.diff(keys[order]) == 0, np.diff(scores[order]) == 0
    np.testing.assert_array_equal(same_key, same_score)


def test_minus_zero_is_tied_with_zero() -> None:
    assert order_keys([-0.0])[0] == order_keys([0.0])[0]


def test_one_score_for_all_is_half_right_and_takes_eight_rounds() -> None:
    scores, positive = np.full(50, 0.3), np.arange(50) % 2 == 0
    value, bound, bins, rounds = agreed([(scores, positive)])
    assert (value, bound, rounds) == (0.5, 0.0, 8)
    assert bins.single.sum() == 1


def test_bins_of_negatives_alone_are_not_cut() -> None:
    negatives, positives = np.linspace(0.1, 0.2, 3000), np.array([0.9, 0.95])
    labels = np.repeat([False, True], [3000, 2])
    _, _, bins, _ = agreed([(np.append(negatives, positives), labels)])
    assert len(np.unique(bins.find(order_keys(negatives)))) < 40


def test_without_a_case_nothing_is_cut() -> None:
    value, bound, _, rounds = agreed([(np.zeros(0), np.zeros(0, dtype=np.bool_))])
    assert np.isnan(value)
    assert np.isnan(bound)
    assert rounds == 1
