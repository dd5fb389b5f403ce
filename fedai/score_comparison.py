"""`fedai compare --scores`: from files of scores to a paper's numbers, by sums that sites could have sent.

Intervals are 95%, treat patients as the unit and are paired where models are compared. Nothing here sees a
row: it asks `SiteRows` for counts and sums.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedai.agreed_bins import Bins, agree, auroc_bound
from fedai.errors import ConfigError, DataError
from fedai.measures import (
    across,
    across_differences,
    brier_measure,
    logit_of,
    mean_measure,
    precision_measure,
)
from fedai.meta_analysis import RandomEffects
from fedai.metrics import Floats, Integers
from fedai.placements import PlacementSums
from fedai.precision_recall import average_precision, average_precision_bound
from fedai.results import FEWEST, UNKNOWN, Measure, lack_of
from fedai.score_answers import FirstAnswer, SecondAnswer, SiteRows
from fedai.score_files import SiteScores
from fedai.statistics import (
    Contrast,
    call_interval,
    contrast,
    covariance_parts,
    degrees_of_freedom,
    holm,
    non_inferiority,
    score_interval,
)


@dataclass(frozen=True)
class Counts:
    """Cases and patients, int64 [negative, positive] each, and all patients."""

    cases: tuple[int, int]
    members: tuple[int, int]
    patients: int

    @property
    def enough(self) -> bool:
        return min(self.members) >= FEWEST

    @property
    def lack(self) -> str:
        """What there is too little of, with the number needed; nothing if there is enough."""
        return lack_of(*self.members)


@dataclass(frozen=True)
class ModelScores:
    """One model on all sites' cases; None for what wasn't asked for or can't be had.

    `bound`, `auprc_bound`: largest possible binning errors. `sites`: AUROC at each; `across`: random effects
    over sites, on the logit scale; `left_out`: sites that it doesn't use."""

    name: str
    auroc: Measure
    se: float | None
    bound: float
    auprc: Measure
    auprc_bound: float
    brier: Measure
    threshold: float | None
    sensitivity: Measure
    specificity: Measure
    net_benefit: Measure
    sites: Mapping[str, Measure]
    across: RandomEffects | None
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class NonInferiority:
    """One-sided test that a model is worse than the other by less than the margin; shown at 2.5%."""

    p: float | None
    p_adjusted: float | None

    @property
    def shown(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < 0.025


@dataclass(frozen=True)
class Pair:
    """AUROC of `a` minus AUROC of `b`; `p_adjusted`: Holm's over all pairs compared. `non_inferior`: of a and
    of b, with a margin."""

    a: str
    b: str
    found: Contrast
    p_adjusted: float | None
    sites: Mapping[str, Contrast]
    across: RandomEffects | None
    left_out: tuple[str, ...]
    non_inferior: tuple[NonInferiority, NonInferiority] | None

    @property
    def superior(self) -> str | None:
        """The better model, at 5% after adjustment."""
        if self.p_adjusted is None or self.p_adjusted >= 0.05:
            return None
        return self.a if self.found.difference > 0 else self.b


@dataclass(frozen=True)
class ScoreComparison:
    """What `fedai compare --scores` prints."""

    counts: Counts
    sites: Mapping[str, Counts]
    models: tuple[ModelScores, ...]
    pairs: tuple[Pair, ...]
    margin: float | None
    notes: tuple[str, ...]


def compare_scores(
    sites: Sequence[SiteScores],
    *,
    thresholds: Mapping[str, float] | None = None,
    margin: float | None = None,
    against: str | None = None,
) -> ScoreComparison:
    """Compare all models in pairs, or each with the one `against` which they stand.

    Raises ConfigError for unknown models or an impossible margin, DataError where all sites together have too
    few patients for an interval.
    """
    models = sites[0].models
    asked = dict(thresholds or {})
    _check_options(models, asked, margin, against)
    rows = [SiteRows(site) for site in sites]
    bins = [_agreed(rows, i) for i in range(len(models))]
    firsts = [r.first(bins, asked) for r in rows]
    merged = functools.reduce(operator.add, firsts)
    second = functools.reduce(operator.add, (r.second(bins, merged.histograms) for r in rows))
    pooled = _Population(merged, second.placements, bins)
    if not pooled.counts.enough:
        raise DataError(
            f"too few patients in all files together: {pooled.counts.lack}",
            hint="an interval from fewer would be too narrow: add cases or sites",
        )
    own = {
        r.site: _Population(first, r.placements(bins, first.histograms), bins)
        for r, first in zip(rows, firsts, strict=True)
    }
    pairs = _pairs(models, against)
    return ScoreComparison(
        pooled.counts,
        {site: population.counts for site, population in own.items()},
        tuple(_model(name, i, pooled, second, own, asked) for i, name in enumerate(models)),
        _compared(models, pairs, pooled, own, margin),
        margin,
        tuple(_notes(own, models, pooled)),
    )


def _check_options(
    models: Sequence[str], thresholds: Mapping[str, float], margin: float | None, against: str | None
) -> None:
    named = [*thresholds, *([against] if against is not None else [])]
    if unknown := [name for name in named if name not in models]:
        raise ConfigError(
            f"no column holds the scores of {', '.join(unknown)}", hint=f"models: {', '.join(models)}"
        )
    if margin is not None and not 0 < margin < 1:
        raise ConfigError("the margin must be a difference of AUROC between 0 and 1", hint="such as 0.05")


def _agreed(rows: Sequence[SiteRows], model: int) -> Bins:
    return agree(lambda bins: functools.reduce(operator.add, [r.count(model, bins) for r in rows]))[0]


class _Population:
    """The cases of one site, or of all: their sums, and what follows for each model."""

    def __init__(self, first: FirstAnswer, sums: PlacementSums, bins: Sequence[Bins]) -> None:
        self.first, self.sums, self.bins = first, sums, bins
        self.counts = Counts(_two(sums.cases[:, 0]), _two(sums.members[:, 0]), sums.patients)
        self.aurocs = np.array([h.auroc()[0] for h in first.histograms])
        self.parts = covariance_parts(sums)
        self.covariance = self.parts.sum(axis=(0, 1))

    def weights(self, rows: Mapping[int, float]) -> Floats:
        made = np.zeros(len(self.aurocs))
        for row, weight in rows.items():
            made[row] = weight
        return made

    def degrees(self, weights: Floats) -> float:
        return degrees_of_freedom(weights, self.parts, self.sums.members)

    def auroc(self, i: int) -> Measure:
        value = float(self.aurocs[i])
        if not math.isfinite(value) or not self.counts.enough:
            return Measure(value if math.isfinite(value) else None, None)
        df = self.degrees(self.weights({i: 1.0}))
        variance = float(self.covariance[i, i])
        return Measure(value, score_interval(value, variance, df, self.counts.cases, self.counts.members))

    def logit(self, i: int) -> tuple[float, float] | None:
        """The AUROC's logit and its variance; None where there is none, or too few patients."""
        if not self.counts.enough:
            return None
        return logit_of(float(self.aurocs[i]), float(self.covariance[i, i]), self.counts.cases)

    def difference(self, a: int, b: int) -> Contrast | None:
        """None where a side is empty; without interval where there are too few patients."""
        weights = self.weights({a: 1.0, b: -1.0})
        found = contrast(weights, self.aurocs, self.covariance, self.degrees(weights))
        return found if found is None or self.counts.enough else Contrast(found.difference)

    def precision(self, i: int, second: SecondAnswer) -> Measure:
        value = average_precision(self.first.counts[i], self.bins[i].single)
        squares = float(second.precisions[i])
        return precision_measure(value, squares, self.counts.patients, self.counts.members)

    def brier(self, i: int) -> Measure:
        return brier_measure(self.first.briers[i])

    def call(self, i: int, side: int) -> Measure:
        found = self.first.calls[i]
        if found is None:
            return UNKNOWN
        value = float((found.sensitivity() if side else found.specificity())[0])
        return Measure(value, call_interval(found, 0, side))


def _two(numbers: Integers) -> tuple[int, int]:
    return int(numbers[0]), int(numbers[1])


def _model(
    name: str,
    i: int,
    pooled: _Population,
    second: SecondAnswer,
    own: Mapping[str, _Population],
    thresholds: Mapping[str, float],
) -> ModelScores:
    auroc = pooled.auroc(i)
    logits = {site: found for site, p in own.items() if (found := p.logit(i))}
    counts = pooled.first.counts[i]
    return ModelScores(
        name,
        auroc,
        math.sqrt(pooled.covariance[i, i]) if auroc.ci95 and pooled.covariance[i, i] > 0 else None,
        auroc_bound(counts, pooled.bins[i]),
        pooled.precision(i, second),
        average_precision_bound(counts, pooled.bins[i].single),
        pooled.brier(i),
        thresholds.get(name),
        pooled.call(i, 1),
        pooled.call(i, 0),
        mean_measure(pooled.first.benefits[i]),
        {site: p.auroc(i) for site, p in own.items()},
        across([*logits.values()]),
        tuple(site for site in own if site not in logits),
    )


def _pairs(models: Sequence[str], against: str | None) -> list[tuple[int, int]]:
    if against is None:
        return list(itertools.combinations(range(len(models)), 2))
    b = models.index(against)
    return [(a, b) for a in range(len(models)) if a != b]


def _compared(
    models: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    pooled: _Population,
    own: Mapping[str, _Population],
    margin: float | None,
) -> tuple[Pair, ...]:
    found = [pooled.difference(a, b) or Contrast(0.0) for a, b in pairs]
    adjusted = holm([f.p for f in found])
    no_worse = _no_worse(found, margin)
    made = []
    for (a, b), contrasted, p, tests in zip(pairs, found, adjusted, no_worse, strict=True):
        at = {site: d for site, p_ in own.items() if (d := p_.difference(a, b))}
        known = {site: (d.difference, d.se**2) for site, d in at.items() if d.se is not None}
        left_out = tuple(site for site in own if site not in known)
        together = across_differences([*known.values()])
        made.append(Pair(models[a], models[b], contrasted, p, at, together, left_out, tests))
    return tuple(made)


def _no_worse(
    found: Sequence[Contrast], margin: float | None
) -> list[tuple[NonInferiority, NonInferiority] | None]:
    """Of both models of each pair, adjusted over all these tests."""
    if margin is None:
        return [None] * len(found)
    ps = [non_inferiority(f, margin) for f in found] + [non_inferiority(_turned(f), margin) for f in found]
    tests = [NonInferiority(p, adjusted) for p, adjusted in zip(ps, holm(ps), strict=True)]
    return list(zip(tests[: len(found)], tests[len(found) :], strict=True))


def _turned(found: Contrast) -> Contrast:
    return Contrast(-found.difference, found.se, None, found.p, found.df)


def _notes(own: Mapping[str, _Population], models: Sequence[str], pooled: _Population) -> list[str]:
    notes = ["A patient is known within one file only: the same name in two files counts as two patients."]
    for site, population in own.items():
        if population.counts.lack:
            notes.append(f"{site}: no intervals of its own: {population.counts.lack}.")
    no_probability = [m for m, b in zip(models, pooled.first.briers, strict=True) if b is None]
    if no_probability:
        notes.append(f"No Brier score where scores aren't from 0 to 1: {', '.join(no_probability)}.")
    return notes


def as_measures(sites: Mapping[str, Contrast]) -> dict[str, Measure]:
    return {site: Measure(d.difference, d.ci95) for site, d in sites.items()}
