from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from fedai.metrics import BINS, bin_scores
from fedai.precision_recall import average_precision, average_precision_bound, influences


def counts_of(scores: np.ndarray, positive: np.ndarray, bins: int) -> np.ndarray:
    made = np.zeros((2, bins), dtype=np.int64)
    np.add.at(made, (positive.astype(int), scores), 1)
    return made


def tied(counts: np.ndarray) -> float:
    """Average precision of weighted counts whose bins are all tied."""
    fp, tp = np.cumsum(counts[:, ::-1], axis=1)
    return float((counts[1, ::-1] * tp / (tp + fp)).sum() / tp[-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_on_tied_scores_it_is_scikit_learns(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.3
    positive[0] = True
    scores = rng.integers(0, bins, 60)
    found = average_precision(counts_of(scores, positive, bins), np.ones(bins, dtype=np.bool_))
    assert found == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_whatever_the_order_within_bins_the_bound_holds(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < rng.uniform(0.05, 0.9)
    positive[0] = True
    fine = rng.random(80)
    counts = counts_of((fine * bins).astype(int), positive, bins)
    bound = average_precision_bound(counts)
    assert abs(average_precision(counts) - average_precision_score(positive, fine)) <= bound + 1e-12
    assert average_precision_bound(counts, np.ones(bins, dtype=np.bool_)) == 0


def test_the_bound_is_reached_by_an_order_within_the_bins() -> None:
    counts = np.array([[1, 4, 2], [0, 2, 3]])
    best = average_precision_score([0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1], np.arange(12))
    worst = average_precision_score([0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0], np.arange(12))
    value = average_precision(counts)
    assert worst < value < best
    assert average_precision_bound(counts) == pytest.approx(max(best - value, value - worst), abs=1e-12)


def test_bins_that_hold_few_positives_among_many_negatives_do_not_pull_it_down() -> None:
    """One in 300 positive: with the cases of a bin taken as tied it is 4% lower here."""
    rng = np.random.default_rng(4)
    positive = np.arange(120_000) < 386
    scores = 1 / (1 + np.exp(-rng.normal(positive * 0.1 - 4, 0.05)))
    counts = counts_of(bin_scores(scores), positive, BINS)
    raw = average_precision_score(positive, scores)
    lower = average_precision(counts, np.ones(BINS, dtype=np.bool_))
    assert abs(average_precision(counts) - raw) < 0.25 * abs(lower - raw)


def test_influences_add_up_to_nothing_and_are_the_derivative() -> None:
    counts = np.array([[5, 3, 2, 1, 0], [0, 1, 1, 3, 2]])
    found = influences(counts)
    assert (found * counts).sum() == pytest.approx(0, abs=1e-12)
    for side in (0, 1):
        for place in range(5):
            more = counts.astype(np.float64) * 1e6
            more[side, place] += 1.0
            change = (tied(more) - tied(counts * 1e6)) * 1e6
            assert found[side, place] == pytest.approx(change, rel=1e-3, abs=1e-6)


def test_without_positives_there_is_no_average_precision_and_no_influence() -> None:
    counts = np.array([[3, 4], [0, 0]])
    assert np.isnan(average_precision(counts))
    assert not influences(counts).any()
