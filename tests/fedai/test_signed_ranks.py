from __future__ import annotations

import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from fedai.signed_ranks import BINS, REACH, bin_differences, count_differences, pair_of, signed_ranks

differences = st.lists(st.floats(-1, 1) | st.sampled_from([0.0, 0.01, -0.01]), min_size=1, max_size=40)


def counts_of(given_: list[float]) -> np.ndarray:
    """As of one structure and two models, of which the second has Dice 0 throughout; a case per patient."""
    one = np.array(given_, float).reshape(-1, 1)
    return count_differences([one, np.zeros_like(one)], [f"p{n}" for n in range(len(one))])[0, 0]


@settings(max_examples=100, deadline=None)
@given(differences)
def test_the_test_is_scipys_of_the_binned_differences(given_: list[float]) -> None:
    bins = bin_differences(np.array(given_)) - REACH
    assume(bins.any())
    ours = signed_ranks(counts_of(given_))
    for side, statistic in (("greater", ours.more), ("two-sided", min(ours.more, ours.less))):
        true = wilcoxon(bins, zero_method="wilcox", correction=False, method="asymptotic", alternative=side)
        assert statistic == true.statistic
    assert ours.p == pytest.approx(true.pvalue, abs=1e-12)
    assert (ours.patients, ours.alike) == ((bins != 0).sum(), (bins == 0).sum())


@pytest.mark.parametrize("patients", [12, 50, 200])
@pytest.mark.parametrize("spread", [0.003, 0.03])
def test_binning_moves_p_by_little(patients: int, spread: float) -> None:
    rng, apart = np.random.default_rng(patients), []
    for shift in np.linspace(0, 0.5, 30):
        drawn = rng.normal(shift * spread, spread, patients)
        apart.append(
            abs((signed_ranks(counts_of(list(drawn))).p or 0) - wilcoxon(drawn, method="asymptotic").pvalue)
        )
    assert np.median(apart) < 0.01
    assert np.quantile(apart, 0.9) < 0.05


@settings(max_examples=50, deadline=None)
@given(st.lists(differences, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_counts_of_sites_add_up_to_those_of_all_patients_in_any_order_and_grouping(
    sites: list[list[float]], rng: object
) -> None:
    pooled = counts_of([one for site in sites for one in site])
    parts = [counts_of(site) for site in sites]
    rng.shuffle(parts)  # type: ignore[attr-defined]
    assert np.array_equal(functools.reduce(operator.add, parts), pooled)
    assert np.array_equal(functools.reduce(lambda a, b: b + a, parts), pooled)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_bins_keep_the_order_and_the_other_way_round_is_the_mirrored_bin(given_: list[float]) -> None:
    bins = bin_differences(np.sort(given_))
    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < BINS
    assert np.array_equal(bin_differences(-np.sort(given_)), BINS - 1 - bins)


def test_a_patient_counts_once_with_the_mean_over_cases_where_both_are_defined() -> None:
    one = np.array([[0.9], [0.7], [np.nan], [0.5], [np.nan]])
    other = np.array([[0.7], [0.7], [0.1], [0.5], [0.3]])
    counts = count_differences([one, other], ["a", "a", "a", "b", "c"])[0, 0]
    assert counts.sum() == 2
    assert counts[bin_differences(np.array([0.1]))[0]] == counts[REACH] == 1


def test_of_a_pair_that_too_few_patients_have_nothing_is_told() -> None:
    many, few = np.full((5, 1), 0.5), np.full((5, 1), np.nan)
    few[:2] = 0.4
    counts = count_differences([many, few, many / 2], list("abcde"), least=3)
    assert counts.sum(axis=2).tolist() == [[0, 5, 0]]


@pytest.mark.parametrize("models", [2, 3, 7])
def test_pairs_stand_in_the_order_of_combinations(models: int) -> None:
    pairs = list(itertools.combinations(range(models), 2))
    assert [pair_of(a, b, models) for a, b in pairs] == list(range(len(pairs)))


def test_where_nobody_differs_there_is_no_test() -> None:
    found = signed_ranks(counts_of([0.0] * 20))
    assert (found.p, found.effect, found.patients, found.alike) == (None, None, 0, 20)


def test_all_ranks_on_one_side_are_an_effect_of_one() -> None:
    assert signed_ranks(counts_of([0.1, 0.2, 0.3])).effect == 1.0
    assert signed_ranks(counts_of([-0.1, -0.2, 0.3])).effect == 0.0
