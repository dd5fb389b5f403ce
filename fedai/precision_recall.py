"""Average precision from a histogram, with its binning bound and what each case adds to its variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedai.metrics import Floats, Integers, ratio


def average_precision(counts: Integers) -> float:
    """Area under the precision-recall curve as the mean over positives of the precision at their score.

    `counts`: int64 [2, B], negatives and positives by bin, scores rising. As scikit-learn's
    `average_precision_score`, on bins. NaN without positives.
    """
    precision, _, _ = _falling(counts)
    return float(ratio((counts[1] * np.nan_to_num(precision)).sum(), counts[1].sum()))


def average_precision_bound(counts: Integers, single: NDArray[np.bool_]) -> float:
    """Largest distance of `average_precision` from the unbinned one; bins marked `single` [B] hold ties."""
    precision, above, below = _falling(counts)
    n, m = counts
    worst = ratio(above + 1, above + 1 + below + n)  # its first positive after all its negatives
    best = ratio(above + m, above + m + below)  # its last positive before all of them
    apart = np.where(single | (n + m <= 1), 0.0, np.fmax(precision - worst, best - precision))
    return float(ratio((m * np.nan_to_num(apart)).sum(), m.sum()))


def influences(counts: Integers) -> Floats:
    """Influence of one case by side and bin on the average precision: [2, B].

    Its first-order change for a little more weight on the case. Over all cases they add up to zero; the sum
    of squares of patients' sums estimates the variance.
    """
    precision, above, below = _falling(counts)
    m = max(1, counts[1].sum())
    tp, fp = above + counts[1], below + counts[0]
    square = np.where(tp + fp > 0, (tp + fp).astype(np.float64) ** 2, 1.0)
    as_negative = -np.cumsum(counts[1] * tp / square) / m  # positives at or beneath this bin lose
    as_positive = np.cumsum(counts[1] * fp / square) / m
    own = (np.nan_to_num(precision) - np.nan_to_num(average_precision(counts))) / m
    return np.stack([as_negative, own + as_positive])


def _falling(counts: Integers) -> tuple[Floats, Integers, Integers]:
    """Precision at each bin's lower edge [B] (NaN where nothing is above it), and the positives and negatives
    strictly above each bin."""
    falling = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    precision = ratio(falling[1], falling.sum(axis=0))
    return precision, falling[1] - counts[1], falling[0] - counts[0]
