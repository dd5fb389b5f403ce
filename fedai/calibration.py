"""Whether a model's scores are probabilities: curve, expected error, slope and intercept.

The curve and its error come from sums in ten bins of equal width, exactly as from rows. Slope and intercept
(Cox 1958; Van Calster et al., J Clin Epidemiol 2016;74:167) are fitted to a score histogram, whose bins are
1/256 of a logit wide: each logit is known to 1/512, and beyond ±8 it is taken as 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.errors import FederationError
from fedai.metrics import (
    BINS,
    LOGIT_LIMIT,
    Arrays,
    Floats,
    Integers,
    bin_scores,
    ratio,
    received,
    sum_by_patient,
)

WIDTHS = 10  # of the calibration curve
EDGES = np.linspace(0, 1, WIDTHS + 1)
CENTRES: Floats = np.asarray((np.arange(BINS) + 0.5) * (2 * LOGIT_LIMIT / BINS) - LOGIT_LIMIT, np.float64)
STEPS, LARGEST_STEP, CLOSE = 200, 4.0, 1e-11


@dataclass(frozen=True, eq=False)
class Calibration:
    """Cases and sums of scores by bin of the score: (0, 0.1], (0.1, 0.2] ... (0 is in the first).

    `counts`: int64 [K, side, WIDTHS]. `sums`: float64 [K, WIDTHS]. Where a bin holds one case, its sum is
    that case's score; not whose it is.
    """

    counts: Integers
    sums: Floats

    @classmethod
    def of(cls, p: Floats, positive: NDArray[np.bool_]) -> Calibration:
        """From probabilities and memberships of K comparisons, both [N, K]."""
        k = p.shape[1]
        bins = np.searchsorted(EDGES[1:-1], p)
        cells = (np.arange(k) * 2 + positive) * WIDTHS + bins
        counts = np.bincount(cells.ravel(), minlength=k * 2 * WIDTHS).reshape(k, 2, WIDTHS)
        places = (np.arange(k) * WIDTHS + bins).ravel()
        sums = np.bincount(places, p.ravel(), k * WIDTHS).reshape(k, WIDTHS)
        return cls(counts.astype(np.int64), np.asarray(sums, np.float64))

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.counts + other.counts, self.sums + other.sums)

    def curve(self, k: int = 0) -> tuple[Floats, Floats, Integers]:
        """Mean score, observed share and cases of each bin [WIDTHS]; NaN where a bin is empty."""
        cases = self.counts[k].sum(axis=0)
        return ratio(self.sums[k], cases), ratio(self.counts[k, 1], cases), cases

    def error(self) -> Floats:
        """Expected calibration error [K]: mean over cases of |observed share - mean score| of their bin.

        Naeini, Cooper & Hauskrecht, AAAI 2015. NaN without cases.
        """
        cases = self.counts.sum(axis=(1, 2))
        return ratio(np.abs(self.counts[:, 1] - self.sums).sum(axis=1), cases)

    def to_arrays(self) -> Arrays:
        """`calibration_counts` int64 [K, 2, WIDTHS], `calibration_sums` float64 [K, WIDTHS]."""
        return {"calibration_counts": self.counts, "calibration_sums": self.sums}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Calibration:
        counts = received(arrays, "calibration_counts", (-1, 2, WIDTHS), np.int64)
        sums = received(arrays, "calibration_sums", (len(counts), WIDTHS), np.float64)
        if (sums < 0).any() or (sums > counts.sum(axis=1) * (1 + 1e-9)).any():
            raise FederationError("the sums of scores in calibration bins are not those of probabilities")
        return cls(counts, sums)


@dataclass(frozen=True)
class Recalibration:
    """logit P(positive) = `offset` + `slope` * logit(score), and `intercept` where the slope is held at 1.

    A calibrated model has slope 1 and intercept 0. NaN where no finite fit exists: a side is empty, or a
    threshold parts the sides.
    """

    slope: float
    offset: float
    intercept: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.slope, self.offset, self.intercept]).all())


UNKNOWN = Recalibration(np.nan, np.nan, np.nan)


def expit(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(x / 2)), np.float64)


def recalibrate(counts: Integers) -> Recalibration:
    """Maximum likelihood from one comparison's histogram int64 [2, BINS]."""
    filled = np.flatnonzero(counts.sum(axis=0))
    at = counts[:, filled]
    if not at.sum(axis=1).all() or _parted(at):
        return UNKNOWN
    x = CENTRES[filled]
    middle = x.mean()
    both = _fit(np.stack([np.ones_like(x), x - middle], axis=1), np.zeros_like(x), at)
    alone = _fit(np.ones((len(x), 1)), x, at)
    if both is None or alone is None:
        return UNKNOWN
    return Recalibration(float(both[1]), float(both[0] - both[1] * middle), float(alone[0]))


def _parted(at: Integers) -> bool:
    """Whether some score parts negatives from positives, in either direction: then there is no finite fit."""
    n, m = (np.flatnonzero(side) for side in at)
    return bool(n[-1] <= m[0] or m[-1] <= n[0])


def _fit(design: Floats, given: Floats, at: Integers) -> Floats | None:
    """Newton's method for a logistic regression on grouped cases; None where it doesn't settle."""
    beta, cases = np.zeros(design.shape[1]), at.sum(axis=0)
    for _ in range(STEPS):
        p = expit(given + design @ beta)
        gradient = design.T @ (at[1] - cases * p)
        bread = (design * (cases * p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(bread, gradient)
        except np.linalg.LinAlgError:
            return None
        beta = beta + step * min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), CLOSE))
        if (np.abs(step) < CLOSE * (1 + np.abs(beta))).all():
            return cast(Floats, beta)
    return None


def score_products(
    scores: Floats, positive: NDArray[np.bool_], fitted: list[Recalibration], numbers: Integers, patients: int
) -> Floats:
    """float64 [K, 3, 3]: sums over patients of the products of what their cases add to the fits' equations
    (offset, slope; intercept), for `variances`. Zero where there is no fit.

    scores, positive: [N, K]; numbers [N]: each case's patient, from 0.
    """
    x = CENTRES[bin_scores(scores)]
    made = np.zeros((len(fitted), 3, 3))
    for k, fit in enumerate(fitted):
        if fit.known:
            off = positive[:, k] - expit(fit.offset + fit.slope * x[:, k])
            alone = positive[:, k] - expit(fit.intercept + x[:, k])
            rows = sum_by_patient(np.stack([off, off * x[:, k], alone], axis=1), numbers, patients)
            made[k] = rows.T @ rows
    return made


def variances(counts: Integers, fit: Recalibration, products: Floats, patients: int) -> tuple[float, float]:
    """Of slope and intercept, clustered by patient: the sandwich (White, Econometrica 1982;50:1;
    Liang & Zeger, Biometrika 1986;73:13) times patients / (patients - 1). NaN without a fit.

    `counts` int64 [2, BINS]; `products` [3, 3].
    """
    if not fit.known or patients < 2:
        return np.nan, np.nan
    cases, factor = counts.sum(axis=0), patients / (patients - 1)
    p, q = expit(fit.offset + fit.slope * CENTRES), expit(fit.intercept + CENTRES)
    design = np.stack([np.ones(BINS), CENTRES], axis=1)
    bread = np.linalg.inv((design * (cases * p * (1 - p))[:, None]).T @ design)
    both = bread @ products[:2, :2] @ bread
    alone = products[2, 2] / float((cases * q * (1 - q)).sum()) ** 2
    return float(both[1, 1] * factor), float(alone * factor)


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Calls at each stated threshold, and what the net benefit's interval needs.

    `calls`: int64 [K, T, 2], true and false positives. `squares`: float64 [K, T, 2], sums over patients of
    x*x and x*n, where a patient's n cases have the gains x in all. `cases`, `sizes`: all cases, and the sum
    over patients of n*n.
    """

    thresholds: tuple[float, ...]
    calls: Integers
    squares: Floats
    cases: int
    sizes: int

    @classmethod
    def of(
        cls,
        p: Floats,
        positive: NDArray[np.bool_],
        numbers: Integers,
        patients: int,
        thresholds: tuple[float, ...],
    ) -> DecisionCurve:
        """From probabilities and memberships [N, K] and each case's patient, numbered from 0, [N]."""
        n = np.bincount(numbers, minlength=patients)
        calls, squares = [], []
        for threshold in thresholds:
            called = p >= threshold
            calls.append([(called & positive).sum(axis=0), (called & ~positive).sum(axis=0)])
            x = sum_by_patient(gains(called, positive, threshold), numbers, patients)
            squares.append([(x * x).sum(axis=0), (x * n[:, None]).sum(axis=0)])
        shape = (len(thresholds), 2, p.shape[1])
        return cls(
            thresholds,
            np.array(calls, np.int64).reshape(shape).transpose(2, 0, 1),
            np.array(squares, np.float64).reshape(shape).transpose(2, 0, 1),
            len(p),
            int((n * n).sum()),
        )

    def __add__(self, other: DecisionCurve) -> DecisionCurve:
        if self.thresholds != other.thresholds:
            raise FederationError("decision curves at different thresholds don't add up")
        return DecisionCurve(
            self.thresholds,
            self.calls + other.calls,
            self.squares + other.squares,
            self.cases + other.cases,
            self.sizes + other.sizes,
        )

    def net_benefit(self) -> Floats:
        """[K, T]: true positives less false ones at the threshold's odds, per case.

        Vickers & Elkin, Med Decis Making 2006;26:565.
        """
        odds = np.array([t / (1 - t) for t in self.thresholds])
        return ratio(self.calls[:, :, 0] - self.calls[:, :, 1] * odds, self.cases)

    def squares_of(self, k: int, t: int) -> Floats:
        """xx, xn, nn as `statistics.mean_interval` takes them."""
        return np.array([*self.squares[k, t], self.sizes], np.float64)

    def to_arrays(self) -> Arrays:
        """`decision_thresholds` float64 [T], `_calls`, `_squares`, and `_cases` int64 [2] (cases, sizes)."""
        return {
            "decision_thresholds": np.array(self.thresholds, np.float64),
            "decision_calls": self.calls,
            "decision_squares": self.squares,
            "decision_cases": np.array([self.cases, self.sizes], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> DecisionCurve:
        thresholds = received(arrays, "decision_thresholds", (-1,), np.float64)
        calls = received(arrays, "decision_calls", (-1, len(thresholds), 2), np.int64)
        squares = received(arrays, "decision_squares", calls.shape, np.float64)
        cases = received(arrays, "decision_cases", (2,), np.int64)
        return cls(tuple(thresholds.tolist()), calls, squares, int(cases[0]), int(cases[1]))


def gains(called: NDArray[np.bool_], positive: NDArray[np.bool_], threshold: float) -> Floats:
    """What each case adds to the net benefit times the number of cases: 1, minus the odds, or 0."""
    return np.where(positive, 1.0, -threshold / (1 - threshold)) * called


def treat_all(cases: Integers, thresholds: tuple[float, ...]) -> Floats:
    """Net benefit [T] of calling every case positive; `cases` [2]: negatives, positives."""
    odds = np.array([t / (1 - t) for t in thresholds])
    return ratio(cases[1] - cases[0] * odds, cases.sum())
