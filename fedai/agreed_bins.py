"""Bins that sites agree on for scores of any real range: fine where their scores lie together.

The order of float64 values is that of their bits, read as whole numbers (`order_keys`). A bin is a range of
such keys. All sites start from the same 256 bins; then, round by round, each counts its cases per bin, the
counts are added, and every bin that holds more than its share is cut into 256 equal parts, until none does or
it is a single value: eight rounds at the most.

A bin holds at most 1/`SHARE` of all cases then, or negatives only, or one value. With n negatives and m
positives, pairs that share a bin without being tied are at most max(n, m)⁻¹ (n + m) / (2 `SHARE`) of all, so
an AUROC from these bins is off by no more than 1/`SHARE`, whatever the scores' distribution. Ties of equal
scores stay ties.

What the counts reveal: each score to the precision that tells it from its neighbours, for positives and what
lies near them; not whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.metrics import Integers

SHARE = 4096
PARTS = 256  # the eight bytes of a key, one by one

Keys = NDArray[np.uint64]


def order_keys(scores: ArrayLike) -> Keys:
    """Keys uint64, same shape, in the order of the finite float64 scores; equal only for equal scores."""
    bits = (np.asarray(scores, dtype=np.float64) + 0.0).view(np.uint64)  # + 0.0: minus zero is zero
    negative = bits >> np.uint64(63) == 1
    return cast(Keys, np.where(negative, ~bits, bits | np.uint64(1 << 63)))


@dataclass(frozen=True, eq=False)
class Bins:
    """Adjoining ranges of keys. `starts`: uint64 [B], the first key of each, rising from 0."""

    starts: Keys

    @classmethod
    def first(cls) -> Bins:
        return cls(np.arange(PARTS, dtype=np.uint64) << np.uint64(56))

    def find(self, keys: Keys) -> Integers:
        """Bin of each key, int64, same shape."""
        return np.searchsorted(self.starts, keys, side="right").astype(np.int64) - 1

    def count(self, keys: Keys, positive: NDArray[np.bool_]) -> Integers:
        """Negatives and positives per bin: int64 [2, B] from keys and membership [N]."""
        size = len(self.starts)
        cells = self.find(keys) + positive * size
        return np.bincount(cells, minlength=2 * size).reshape(2, size).astype(np.int64)

    @property
    def widths(self) -> Keys:
        """Number of keys in each bin, uint64 [B]."""
        return cast(Keys, np.append(self.starts[1:], np.uint64(0)) - self.starts)

    @property
    def single(self) -> NDArray[np.bool_]:
        """Bins of one value, [B]: what shares one is tied."""
        return cast(NDArray[np.bool_], self.widths == 1)

    def crowded(self, counts: Integers) -> Integers:
        """Bins to be cut, given all sites' counts [2, B]."""
        cases = counts.sum(axis=0)
        full = (cases > max(1, cases.sum() // SHARE)) & (counts[1] > 0)
        return np.flatnonzero(full & ~self.single).astype(np.int64)

    def cut(self, which: Integers) -> Bins:
        """Cut these bins into `PARTS` equal parts."""
        steps = self.widths[which] // np.uint64(PARTS)
        parts = self.starts[which, None] + steps[:, None] * np.arange(1, PARTS, dtype=np.uint64)
        return Bins(np.sort(np.concatenate([self.starts, parts.ravel()])))

    def joined(self, counts: Integers) -> tuple[Bins, Integers]:
        """Join empty bins that adjoin: the bins and their counts [2, B]."""
        filled = counts.sum(axis=0) > 0
        keep = filled | np.append(True, filled[:-1])
        return Bins(self.starts[keep]), counts[:, keep]


def agree(count: Callable[[Bins], Integers]) -> tuple[Bins, Integers]:
    """The bins for one model and their counts. `count` asks all sites and adds their counts int64 [2, B]."""
    bins = Bins.first()
    while True:
        bins, counts = bins.joined(count(bins))
        crowded = bins.crowded(counts)
        if not crowded.size:
            return bins, counts
        bins = bins.cut(crowded)


def auroc_bound(counts: Integers, bins: Bins) -> float:
    """Largest distance of the AUROC of `counts` [2, B] from the unbinned one; NaN for an empty side."""
    negatives, positives = counts.sum(axis=1)
    if not negatives or not positives:
        return float("nan")
    apart = np.where(bins.single, 0, counts.prod(axis=0))
    return float(apart.sum() / (2 * int(negatives) * int(positives)))
