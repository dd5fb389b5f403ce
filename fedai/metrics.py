"""What a site says about its test cases: counts and sums that add up.

Every value here is built at one site from per-case arrays, holds no per-case value, and has a `+` that is
associative and commutative: merging the values of sites gives the value of their pooled cases (integers
exactly, floating point to rounding). Patients are taken to be disjoint between sites.

`K` is the number of AUROCs of a model: 1 for two classes (class 1 against class 0), else the number of
classes (each against the rest). Axes called `side` hold negatives at 0 and positives at 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.errors import DataError, FederationError, TrainingError

BINS = 4096
LOGIT_LIMIT = 8.0

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]


def bin_scores(scores: ArrayLike) -> Integers:
    """Bin of each probability: `BINS` equal bins of its logit, clipped to ±`LOGIT_LIMIT`. Keeps the shape.

    Monotone: a higher probability never falls into a lower bin. Raises TrainingError for NaN or values
    outside [0, 1].
    """
    p = probabilities(scores)
    with np.errstate(divide="ignore"):
        logit = np.log(p) - np.log1p(-p)
    position = (np.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT) + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT))
    return cast(Integers, np.minimum(position.astype(np.int64), BINS - 1))


def probabilities(values: ArrayLike) -> Floats:
    """The values as float64, same shape. Raises TrainingError for NaN or values outside [0, 1]."""
    p = np.asarray(values, dtype=np.float64)
    if not np.isfinite(p).all() or (p < 0).any() or (p > 1 + 1e-6).any():
        raise TrainingError("scores must be probabilities from 0 to 1", hint="look for NaN in the outputs")
    return np.minimum(p, 1.0)


def _labels(values: ArrayLike, cases: int, classes: int) -> Integers:
    labels = np.asarray(values)
    if labels.shape != (cases,):
        raise DataError(f"expected {cases} labels, one per row of scores, got shape {labels.shape}")
    if cases and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes):
        raise DataError(f"labels must be class numbers from 0 to {classes - 1}")
    return labels.astype(np.int64)


def one_against_rest(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Probabilities and memberships of the K comparisons, both [N, K], from softmax scores [N, C]."""
    p = probabilities(scores)
    if p.ndim != 2 or p.shape[1] < 2:
        raise TrainingError(f"scores must be [cases, classes] with two or more classes, got shape {p.shape}")
    first = 1 if p.shape[1] == 2 else 0
    y = _labels(labels, *p.shape)
    return p[:, first:], y[:, None] == np.arange(first, p.shape[1])


def patient_numbers(patients: Sequence[str], cases: int) -> tuple[Integers, int]:
    """Number each case's patient: int64 [N] counting from 0, and how many patients there are."""
    if len(patients) != cases:
        raise DataError(f"expected {cases} patients, one per row of scores, got {len(patients)}")
    names, numbers = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    return numbers.astype(np.int64).ravel(), len(names)


def sum_by_patient(rows: NDArray[Any], numbers: Integers, patients: int) -> NDArray[Any]:
    """Sum rows [N, ...] that belong to one patient: [patients, ...], same dtype."""
    sums = np.zeros((patients, *rows.shape[1:]), dtype=rows.dtype)
    np.add.at(sums, numbers, rows)
    return sums


def sides(rows: NDArray[Any], positive: NDArray[np.bool_]) -> NDArray[Any]:
    """Split rows [N, ..., K] by membership [N, K] into [N, side, ..., K], zero on the other side."""
    shape = (len(rows), *([1] * (rows.ndim - 2)), rows.shape[-1])
    mask = positive.reshape(shape)
    return np.stack([np.where(mask, 0, rows), np.where(mask, rows, 0)], axis=1)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """numerator / denominator, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
        return np.asarray(np.where(bottom == 0, np.nan, top / bottom), dtype=np.float64)


def received(arrays: Mapping[str, ArrayLike], name: str, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    """One array that a site sent, checked: present, of this shape (-1: any size), finite, counts from 0."""
    if name not in arrays:
        raise FederationError(f"array {name!r} is missing from the score")
    array = np.asarray(arrays[name])
    fits = array.ndim == len(shape) and all(e in (-1, n) for e, n in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in ("iu" if kind is np.int64 else "f"):
        raise FederationError(f"array {name!r} has an unexpected shape {array.shape} or type {array.dtype}")
    if not np.isfinite(array).all() or (kind is np.int64 and (array < 0).any()):
        raise FederationError(f"array {name!r} holds values that aren't finite or counts below zero")
    return array.astype(kind)


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """How many negatives and positives fall into each bin of the score, per comparison.

    `counts`: int64 [K, side, BINS]. Reveals scores to a bin's width (1/256 of logit), not whose they are.
    """

    counts: Integers

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> ScoreHistogram:
        """From softmax scores float [N, C] and labels int [N]."""
        p, positive = one_against_rest(scores, labels)
        k = p.shape[1]
        cells = (np.arange(k) * 2 + positive) * BINS + bin_scores(p)
        return cls(np.bincount(cells.ravel(), minlength=k * 2 * BINS).reshape(k, 2, BINS).astype(np.int64))

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        return ScoreHistogram(self.counts + other.counts)

    @property
    def cases(self) -> Integers:
        """Negatives and positives, int64 [K, side]."""
        return cast(Integers, self.counts.sum(axis=2))

    @property
    def _pairs(self) -> Integers:
        return cast(Integers, self.cases.prod(axis=1))

    def auroc(self) -> Floats:
        """AUROC [K]: the share of pairs ordered rightly, ties (same bin) half. NaN where a side is empty."""
        negatives, positives = self.counts[:, 0], self.counts[:, 1]
        below = np.cumsum(negatives, axis=1) - negatives
        return ratio((positives * (2 * below + negatives)).sum(axis=1), 2 * self._pairs)

    def auroc_bound(self) -> Floats:
        """Largest possible distance [K] of `auroc` from the raw scores' one: half the share of tied pairs."""
        return ratio(self.counts.prod(axis=1).sum(axis=1), 2 * self._pairs)

    def roc(self, k: int = 0) -> tuple[Floats, Floats]:
        """False and true positive rates, each [BINS + 1], from (0, 0) to (1, 1). NaN for an empty side."""
        falling = np.cumsum(self.counts[k, :, ::-1], axis=1)
        rates = ratio(np.concatenate([np.zeros((2, 1)), falling], axis=1), falling[:, -1:])
        return rates[0], rates[1]

    def placements(self) -> Floats:
        """Placement value of a case by bin, [K, side, BINS] (DeLong 1988).

        For a positive: the share of negatives it exceeds. For a negative: the share of positives above it.
        Ties count half.
        """
        negatives, positives = self.counts[:, 0], self.counts[:, 1]
        n, m = negatives.sum(axis=1, keepdims=True), positives.sum(axis=1, keepdims=True)
        exceeded = np.cumsum(negatives, axis=1) - negatives / 2
        above = m - np.cumsum(positives, axis=1) + positives / 2
        return np.stack([ratio(above, m), ratio(exceeded, n)], axis=1)

    def to_arrays(self) -> Arrays:
        """`histogram`: uint32 [K, 2, BINS]."""
        return {"histogram": self.counts.astype(np.uint32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> ScoreHistogram:
        return cls(received(arrays, "histogram", (-1, 2, BINS), np.int64))


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """Right and wrong calls at a stated threshold (positive: score >= threshold), with what clustering needs.

    `counts`: int64 [K, 4], tp fp tn fn. `squares`: int64 [K, side, 3], sums over patients of h*h, h*n, n*n
    where a patient has n cases on that side and h of them called rightly. `patients`: int64 [K, side], the
    patients with n > 0.
    """

    threshold: float
    counts: Integers
    squares: Integers
    patients: Integers

    @classmethod
    def of(
        cls, scores: ArrayLike, labels: ArrayLike, patients: Sequence[str], threshold: float
    ) -> ThresholdCounts:
        """From softmax scores float [N, C], labels int [N] and one patient name per case."""
        p, positive = one_against_rest(scores, labels)
        return cls.of_calls(p >= threshold, positive, *patient_numbers(patients, len(p)), threshold)

    @classmethod
    def of_calls(
        cls,
        called: NDArray[np.bool_],
        positive: NDArray[np.bool_],
        numbers: Integers,
        patients: int,
        threshold: float,
    ) -> ThresholdCounts:
        """From calls and memberships [N, K] and each case's patient, numbered from 0, [N]."""
        n = sum_by_patient(sides(np.ones(called.shape, np.int64), positive), numbers, patients)
        h = sum_by_patient(sides((called == positive).astype(np.int64), positive), numbers, patients)
        cells = [called & positive, called & ~positive, ~called & ~positive, ~called & positive]
        counts = np.stack([cell.sum(axis=0) for cell in cells], axis=1).astype(np.int64)
        squares = np.stack([(h * h).sum(axis=0), (h * n).sum(axis=0), (n * n).sum(axis=0)], axis=2)
        members = (n > 0).sum(axis=0).T.astype(np.int64)
        return cls(float(threshold), counts, squares.transpose(1, 0, 2), members)

    def __add__(self, other: ThresholdCounts) -> ThresholdCounts:
        if self.threshold != other.threshold:
            raise FederationError(f"counts at thresholds {self.threshold} and {other.threshold} don't add up")
        sums = (self.counts + other.counts, self.squares + other.squares, self.patients + other.patients)
        return ThresholdCounts(self.threshold, *sums)

    def sensitivity(self) -> Floats:
        """[K], NaN where there is no positive."""
        return ratio(self.counts[:, 0], self.counts[:, 0] + self.counts[:, 3])

    def specificity(self) -> Floats:
        """[K], NaN where there is no negative."""
        return ratio(self.counts[:, 2], self.counts[:, 2] + self.counts[:, 1])

    def to_arrays(self) -> Arrays:
        """`threshold` float64 [1]; `threshold_counts`, `threshold_squares`, `threshold_patients` int64."""
        return {
            "threshold": np.array([self.threshold]),
            "threshold_counts": self.counts,
            "threshold_squares": self.squares,
            "threshold_patients": self.patients,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> ThresholdCounts:
        threshold = received(arrays, "threshold", (1,), np.float64)
        counts = received(arrays, "threshold_counts", (-1, 4), np.int64)
        squares = received(arrays, "threshold_squares", (len(counts), 2, 3), np.int64)
        members = received(arrays, "threshold_patients", (len(counts), 2), np.int64)
        return cls(float(threshold[0]), counts, squares, members)


@dataclass(frozen=True)
class Mean:
    """A weighted mean as its sum and its weight."""

    total: float
    weight: float

    @classmethod
    def of(cls, values: ArrayLike) -> Mean:
        """The mean of one value per case, float [N]."""
        x = np.asarray(values, dtype=np.float64)
        return cls(float(x.sum()), float(x.size))

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """NaN for no cases."""
        return self.total / self.weight if self.weight else float("nan")


@dataclass(frozen=True, eq=False)
class ClusteredMean:
    """A mean over cases with what its variance needs. `squares`: float64 [3], sums over patients of x*x, x*n,
    n*n, where a patient has n cases whose values add up to x."""

    total: float
    cases: int
    squares: Floats
    patients: int

    @classmethod
    def of(cls, values: ArrayLike, numbers: Integers, patients: int) -> ClusteredMean:
        """From one value per case, float [N], and each case's patient, numbered from 0, [N]."""
        per_case = np.asarray(values, dtype=np.float64)
        x = np.bincount(numbers, per_case, patients)
        n = np.bincount(numbers, minlength=patients).astype(np.float64)
        return cls(float(per_case.sum()), len(per_case), np.array([x @ x, x @ n, n @ n]), patients)

    def __add__(self, other: ClusteredMean) -> ClusteredMean:
        return ClusteredMean(
            self.total + other.total,
            self.cases + other.cases,
            self.squares + other.squares,
            self.patients + other.patients,
        )

    @property
    def value(self) -> float:
        """NaN for no cases."""
        return self.total / self.cases if self.cases else float("nan")
