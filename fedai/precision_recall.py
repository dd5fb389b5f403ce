"""Average precision from a histogram, with its binning bound and what each case adds to its variance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedai.metrics import Floats, Integers, ratio


def average_precision(counts: Integers, single: NDArray[np.bool_] | None = None) -> float:
    """Area under the precision-recall curve as the mean over positives of the precision at their score.

    `counts`: int64 [2, B], negatives and positives by bin, scores rising. Cases of a bin marked `single` [B]
    are tied, and there it is scikit-learn's `average_precision_score`; those of another are taken as spread
    evenly through it. NaN without positives.
    """
    return _mean_precision(counts, single, lambda i, n, m: n * i / (m + 1))


def average_precision_bound(counts: Integers, single: NDArray[np.bool_] | None = None) -> float:
    """Largest distance of `average_precision` from the unbinned one: that of the orders within bins which put
    all negatives first, or all positives.
    """
    found = average_precision(counts, single)
    worst = _mean_precision(counts, single, lambda i, n, m: n)
    best = _mean_precision(counts, single, lambda i, n, m: np.zeros_like(n))
    return max(found - worst, best - found)


def _mean_precision(
    counts: Integers,
    single: NDArray[np.bool_] | None,
    above_in_bin: Callable[[Integers, Integers, Integers], Floats | Integers],
) -> float:
    """Mean over positives. `above_in_bin`: how many negatives of its bin lie above a bin's i-th positive,
    given i, the bin's negatives, and its positives, each [positives].
    """
    _, above, below = _falling(counts)
    m = counts[1]
    of = np.repeat(np.arange(m.size), m)
    if not of.size:
        return float("nan")
    i = np.arange(1, of.size + 1) - np.repeat(np.cumsum(m) - m, m)
    tied = np.zeros(m.size, dtype=np.bool_) if single is None else single
    true = above[of] + np.where(tied[of], m[of], i)
    false = below[of] + np.where(tied[of], counts[0][of], above_in_bin(i, counts[0][of], m[of]))
    return float((true / (true + false)).mean())


def influences(counts: Integers) -> Floats:
    """Influence of one case by side and bin on the average precision of tied bins: [2, B].

    Its first-order change for a little more weight on the case. Over all cases they add up to zero; the sum
    of squares of patients' sums estimates the variance.
    """
    precision, above, below = _falling(counts)
    m = max(1, counts[1].sum())
    tp, fp = above + counts[1], below + counts[0]
    square = np.where(tp + fp > 0, (tp + fp).astype(np.float64) ** 2, 1.0)
    as_negative = -np.cumsum(counts[1] * tp / square) / m  # positives at or beneath this bin lose
    as_positive = np.cumsum(counts[1] * fp / square) / m
    mean = (counts[1] * np.nan_to_num(precision)).sum() / m
    own = (np.nan_to_num(precision) - mean) / m
    return np.stack([as_negative, own + as_positive])


def _falling(counts: Integers) -> tuple[Floats, Integers, Integers]:
    """Precision at each bin's lower edge [B] (NaN where nothing is above it), and the positives and negatives
    strictly above each bin."""
    falling = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    precision = ratio(falling[1], falling.sum(axis=0))
    return precision, falling[1] - counts[1], falling[0] - counts[0]
