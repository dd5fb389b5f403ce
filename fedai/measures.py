"""Values with their intervals from sums, for comparisons of runs and of score files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fedai.meta_analysis import RandomEffects, random_effects
from fedai.metrics import ClusteredMean
from fedai.results import UNKNOWN, Measure
from fedai.statistics import mean_interval, steady_variance, wald_interval


def known(value: float) -> float | None:
    """None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def mean_measure(found: ClusteredMean | None) -> Measure:
    """A mean over cases, clustered by patient."""
    if found is None or not found.cases:
        return UNKNOWN
    return Measure(found.value, mean_interval(found.value, found.squares, found.patients, found.cases))


def brier_measure(found: ClusteredMean | None, most: float = 1.0) -> Measure:
    """The same within 0 and `most` (2 where the squares of several classes are added up)."""
    made = mean_measure(found)
    return Measure(made.value, (max(0.0, made.ci95[0]), min(most, made.ci95[1])) if made.ci95 else None)


def precision_measure(value: float, squares: float, patients: int, members: Sequence[int]) -> Measure:
    """An average precision from the sum over patients of squared influences; `members`: patients by side."""
    if not math.isfinite(value) or patients < 2 or min(members) < 2:
        return Measure(known(value))
    variance = squares * patients / (patients - 1)
    return Measure(value, wald_interval(value, variance, min(members) - 1))


def logit_of(auroc: float, variance: float, cases: Sequence[int]) -> tuple[float, float] | None:
    """An AUROC's logit and its variance; None where there is none."""
    if not 0 < auroc < 1 or not variance > 0:
        return None
    slope = auroc * (1 - auroc)
    return math.log(auroc / (1 - auroc)), steady_variance(auroc, variance, cases) / slope**2


def across_differences(found: Sequence[tuple[float, float]]) -> RandomEffects | None:
    """As `across`, for differences of AUROCs: no interval reaches beyond -1 and 1, which no difference can
    be.
    """
    effects = across(found)
    if effects is None:
        return None
    prediction = within_one(effects.prediction95) if effects.prediction95 else None
    return replace(effects, ci95=within_one(effects.ci95), prediction95=prediction)


def within_one(interval: tuple[float, float]) -> tuple[float, float]:
    """The part of an interval between -1 and 1."""
    return max(-1.0, interval[0]), min(1.0, interval[1])


def across(found: Sequence[tuple[float, float]]) -> RandomEffects | None:
    """Random effects from one effect and its variance per site."""
    return random_effects([f[0] for f in found], [f[1] for f in found])
