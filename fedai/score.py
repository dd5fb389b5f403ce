"""What one model's scores on one site's cases are reduced to in the first round of a judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedai.calibration import WIDTHS, Calibration, DecisionCurve
from fedai.errors import FederationError
from fedai.metrics import (
    BINS,
    Arrays,
    ClusteredMean,
    Integers,
    ScoreHistogram,
    ThresholdCounts,
    one_against_rest,
    patient_numbers,
    received,
)

ArrayForms = dict[str, tuple[str, tuple[int, ...]]]


def brier(scores: ArrayLike, labels: ArrayLike, patients: Sequence[str]) -> ClusteredMean:
    """Brier score: mean over cases of (p1 - y)² for two classes, of the sum of all (p_c - y_c)² for more."""
    p, positive = one_against_rest(scores, labels)
    return ClusteredMean.of(((p - positive) ** 2).sum(axis=1), *patient_numbers(patients, len(p)))


def confusion(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Integers:
    """int64 [C, C], true class by called class: with two classes called by the threshold, with more the
    class of the highest score (the first of equals)."""
    p = np.asarray(scores, dtype=np.float64)
    y, classes = np.asarray(labels, dtype=np.int64), p.shape[1]
    called = (p[:, 1] >= threshold).astype(np.int64) if classes == 2 else p.argmax(axis=1)
    counts = np.bincount(y * classes + called, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Score:
    """Histogram, calls at the threshold, Brier score, calibration bins, decision curve, confusion matrix."""

    histogram: ScoreHistogram
    calls: ThresholdCounts
    brier: ClusteredMean
    calibration: Calibration
    decision: DecisionCurve
    confusion: Integers

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        labels: ArrayLike,
        patients: Sequence[str],
        threshold: float,
        decision_thresholds: tuple[float, ...] = (),
    ) -> Score:
        """From softmax scores float [N, C], labels int [N], one patient name per case. N may be 0."""
        p, positive = one_against_rest(scores, labels)
        numbers = patient_numbers(patients, len(p))
        return cls(
            ScoreHistogram.of(scores, labels),
            ThresholdCounts.of(scores, labels, patients, threshold),
            brier(scores, labels, patients),
            Calibration.of(p, positive),
            DecisionCurve.of(p, positive, *numbers, decision_thresholds),
            confusion(scores, labels, threshold),
        )

    def __add__(self, other: Score) -> Score:
        return Score(
            self.histogram + other.histogram,
            self.calls + other.calls,
            self.brier + other.brier,
            self.calibration + other.calibration,
            self.decision + other.decision,
            self.confusion + other.confusion,
        )

    def to_arrays(self) -> Arrays:
        """As `score_forms` says."""
        b = self.brier
        return {
            **self.histogram.to_arrays(),
            **self.calls.to_arrays(),
            "brier": np.array([b.total, *b.squares[:2]], np.float64),
            "brier_counts": np.array([b.cases, b.squares[2], b.patients], np.int64),
            **self.calibration.to_arrays(),
            **self.decision.to_arrays(),
            "confusion": self.confusion,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Score:
        """Raises FederationError for arrays that are missing, misshapen, negative or contradictory."""
        histogram, calls = ScoreHistogram.from_arrays(arrays), ThresholdCounts.from_arrays(arrays)
        total, xx, xn = received(arrays, "brier", (3,), np.float64)
        cases, nn, patients = (int(n) for n in received(arrays, "brier_counts", (3,), np.int64))
        calibration, decision = Calibration.from_arrays(arrays), DecisionCurve.from_arrays(arrays)
        matrix = received(arrays, "confusion", (-1, -1), np.int64)
        parts = np.stack([calls.counts[:, 1:3].sum(axis=1), calls.counts[:, [0, 3]].sum(axis=1)], axis=1)
        alike = [
            np.array_equal(parts, histogram.cases),
            bool((histogram.cases.sum(axis=1) == cases).all()),
            np.array_equal(calibration.counts.sum(axis=2), histogram.cases),
            decision.cases == cases == matrix.sum(),
            decision.calls.shape[0] == len(parts),
        ]
        if not all(alike):
            raise FederationError("the parts of a score differ in their number of cases")
        squares = np.array([xx, xn, nn], np.float64)
        return cls(
            histogram,
            calls,
            ClusteredMean(float(total), cases, squares, patients),
            calibration,
            decision,
            matrix,
        )


def score_forms(classes: int, thresholds: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `Score.to_arrays`."""
    k = 1 if classes == 2 else classes
    return {
        "histogram": ("uint32", (k, 2, BINS)),
        "threshold": ("float64", (1,)),
        "threshold_counts": ("int64", (k, 4)),
        "threshold_squares": ("int64", (k, 2, 3)),
        "threshold_patients": ("int64", (k, 2)),
        "brier": ("float64", (3,)),
        "brier_counts": ("int64", (3,)),
        "calibration_counts": ("int64", (k, 2, WIDTHS)),
        "calibration_sums": ("float64", (k, WIDTHS)),
        "decision_thresholds": ("float64", (thresholds,)),
        "decision_calls": ("int64", (k, thresholds, 2)),
        "decision_squares": ("float64", (k, thresholds, 2)),
        "decision_cases": ("int64", (2,)),
        "confusion": ("int64", (classes, classes)),
    }
