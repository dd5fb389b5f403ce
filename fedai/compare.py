"""From a judgement to the numbers of a paper's table: every model, pooled and per site, and how they differ.

Intervals are 95% and treat patients, not images, as the unit. Differences are paired: all models judge the
same cases. `p_adjusted` is Holm's over the models compared on the same cases for the same class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedai.judgement import Judgement
from fedai.metrics import Floats, Score
from fedai.placements import PlacementSums
from fedai.statistics import (
    Interval,
    auroc_interval,
    call_interval,
    combined_variance,
    contrast,
    covariance_parts,
    degrees_of_freedom,
    disjoint_pairs,
    holm,
    score_interval,
)

FEDERATED = "federated"
CENTRALISED = "centralised"
LOCAL = "local:"
MEAN_OF_LOCAL = "mean of local"
POOLED = "pooled"
MACRO = "macro"

Json = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A value with its 95% interval, each None where the cases can't tell."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class ClassResult:
    """One model's results for one class against the rest. `bound`: largest possible binning error."""

    name: str
    auroc: Measure
    bound: float | None
    sensitivity: Measure
    specificity: Measure
    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int


@dataclass(frozen=True)
class Result:
    """One model's results on some cases. `auroc`: the mean over the `averaged` classes, which have one."""

    auroc: Measure
    bound: float | None
    averaged: tuple[str, ...]
    classes: tuple[ClassResult, ...]
    brier: float | None
    cases: int
    patients: int

    def to_json(self) -> Json:
        first = self.classes[0]
        single = first if len(self.classes) == 1 else None
        data: Json = {
            "auroc": self.auroc.value,
            "ci95": _listed(self.auroc.ci95),
            "bound": self.bound,
            "brier": self.brier,
            "cases": self.cases,
            "patients": self.patients,
        }
        if single:
            return data | {k: v for k, v in _class_json(single).items() if k not in ("class", *data)}
        return data | {"averaged": list(self.averaged), "classes": [_class_json(c) for c in self.classes]}


@dataclass(frozen=True)
class ModelResults:
    """One model: all sites' cases together, and each site's."""

    name: str
    pooled: Result
    sites: dict[str, Result]

    @property
    def trained_at(self) -> str:
        """The site of a local-only model, else nothing."""
        return self.name.removeprefix(LOCAL) if self.name.startswith(LOCAL) else ""

    def to_json(self) -> Json:
        site = {"site": self.trained_at} if self.trained_at else {}
        return site | {
            "pooled": self.pooled.to_json(),
            "sites": {name: result.to_json() for name, result in self.sites.items()},
        }


@dataclass(frozen=True)
class Difference:
    """AUROC of `a` minus AUROC of `b` on the same cases, for one class or their mean (`macro`)."""

    a: str
    b: str
    cases_of: str
    of: str
    difference: float
    se: float | None
    ci95: Interval | None
    p: float | None
    p_adjusted: float | None = None

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "cases_of": self.cases_of,
            "class": self.of,
            "difference": self.difference,
            "se": self.se,
            "ci95": _listed(self.ci95),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True)
class Comparison:
    """What `fedai compare` prints and `fedai report` draws."""

    classes: tuple[str, ...]
    threshold: float
    models: tuple[ModelResults, ...]
    differences: tuple[Difference, ...]

    def model(self, name: str) -> ModelResults | None:
        return next((m for m in self.models if m.name == name), None)

    @property
    def local(self) -> tuple[ModelResults, ...]:
        return tuple(m for m in self.models if m.trained_at)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.models[0].sites)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.models[0].pooled.classes)

    @property
    def main(self) -> str:
        """What the main difference is of: the mean over classes, or the only one."""
        return MACRO if len(self.tasks) > 1 else self.tasks[0]

    def to_json(self) -> Json:
        """`local` (a list), `federated`, `centralised`, `others`, `differences`; null where not known."""
        federated, centralised = self.model(FEDERATED), self.model(CENTRALISED)
        named = {FEDERATED, CENTRALISED, *(m.name for m in self.local)}
        return {
            "classes": list(self.classes),
            "threshold": self.threshold,
            "local": [m.to_json() for m in self.local],
            "federated": federated.to_json() if federated else None,
            "centralised": centralised.to_json() if centralised else None,
            "others": {m.name: m.to_json() for m in self.models if m.name not in named},
            "differences": [d.to_json() for d in self.differences],
        }


def compare(judgement: Judgement) -> Comparison:
    """All results and differences that follow from a judgement."""
    pooled = _Population(judgement, POOLED, judgement.merged, judgement.pooled)
    sites = [
        _Population(judgement, site, judgement.scores[site].__getitem__, judgement.own[site])
        for site in judgement.sites
    ]
    models = [
        ModelResults(name, pooled.result(row), {site.name: site.result(row) for site in sites})
        for row, name in enumerate(judgement.models)
    ]
    differences = [d for population in (pooled, *sites) for d in population.differences()]
    return Comparison(judgement.classes, judgement.threshold, tuple(models), tuple(differences))


class _Population:
    """The cases of one site, or of all: placement sums, covariance, and what can be said of each model."""

    def __init__(
        self, judgement: Judgement, name: str, score_of: Callable[[str], Score], sums: PlacementSums
    ) -> None:
        self.judgement, self.name, self.sums = judgement, name, sums
        self.shape = (len(judgement.models), len(judgement.tasks))
        self.scores = [score_of(m) for m in judgement.models]
        self.aurocs = np.stack([score.histogram.auroc() for score in self.scores])
        self.parts = covariance_parts(sums)
        self.covariance = self.parts.sum(axis=(0, 1))

    def result(self, row: int) -> Result:
        score = self.scores[row]
        classes = tuple(self._class_result(score, row, k) for k in range(self.shape[1]))
        known = [k for k in range(self.shape[1]) if np.isfinite(self.aurocs[row, k])]
        bounds = score.histogram.auroc_bound()[known]
        return Result(
            classes[0].auroc if len(classes) == 1 else self._macro(row, known),
            float(bounds.mean()) if known else None,
            tuple(self.judgement.tasks[k] for k in known),
            classes,
            _known(score.brier.value),
            int(score.brier.weight),
            self.sums.patients,
        )

    def _class_result(self, score: Score, row: int, k: int) -> ClassResult:
        cases, members = score.histogram.cases[k], self.sums.members[:, k]
        return ClassResult(
            self.judgement.tasks[k],
            self._auroc(row, [k]),
            _known(score.histogram.auroc_bound()[k]),
            Measure(_known(score.calls.sensitivity()[k]), call_interval(score.calls, k, 1)),
            Measure(_known(score.calls.specificity()[k]), call_interval(score.calls, k, 0)),
            int(cases[1]),
            int(cases[0]),
            int(members[1]),
            int(members[0]),
        )

    def _macro(self, row: int, known: Sequence[int]) -> Measure:
        return self._auroc(row, known) if known else Measure(None, None)

    def _auroc(self, row: int, columns: Sequence[int]) -> Measure:
        """The mean AUROC over some classes."""
        value = float(self.aurocs[row, columns].mean())
        weights = self._weights({row: 1.0}, columns)
        variance = combined_variance(weights, self.covariance)
        return Measure(_known(value), self._interval(value, variance, self._degrees(weights), columns))

    def _interval(self, value: float, variance: float, df: float, columns: Sequence[int]) -> Interval | None:
        cases, members = self.sums.cases[:, columns], self.sums.members[:, columns]
        if len(columns) == 1 and value not in (0.0, 1.0):
            return score_interval(value, variance, df, cases[:, 0].tolist(), members[:, 0].tolist())
        return auroc_interval(value, variance, disjoint_pairs(members, self.sums.patients), df)

    def _degrees(self, weights: Floats) -> float:
        return degrees_of_freedom(weights, self.parts, self.sums.members)

    def _weights(self, rows: dict[int, float], columns: Sequence[int]) -> Floats:
        weights = np.zeros(self.shape)
        for row, weight in rows.items():
            weights[row, columns] += weight / len(columns)
        return weights.ravel()

    def differences(self) -> Iterable[Difference]:
        """Federated against the mean of the local-only models, and against every other model."""
        models = self.judgement.models
        if FEDERATED not in models:
            return
        first = models.index(FEDERATED)
        local = [i for i, name in enumerate(models) if name.startswith(LOCAL)]
        asked = {name: {first: 1.0, i: -1.0} for i, name in enumerate(models) if i != first}
        if len(local) > 1:
            asked = {MEAN_OF_LOCAL: {first: 1.0, **{i: -1.0 / len(local) for i in local}}, **asked}
        yield from _adjusted([d for name, rows in asked.items() for d in self._against(name, rows)])

    def _against(self, other: str, rows: dict[int, float]) -> Iterable[Difference]:
        tasks = self.judgement.tasks
        known = np.flatnonzero(np.isfinite(self.aurocs[list(rows)]).all(axis=0)).tolist()
        questions = [(tasks[k], [k]) for k in known]
        if len(tasks) > 1 and known:
            questions.insert(0, (MACRO, known))
        for of, columns in questions:
            weights = self._weights(rows, columns)
            found = contrast(weights, self.aurocs.ravel(), self.covariance, self._degrees(weights))
            if found:
                numbers = (found.difference, found.se, found.ci95, found.p)
                yield Difference(FEDERATED, other, self.name, of, *numbers)


def _adjusted(differences: Sequence[Difference]) -> Iterable[Difference]:
    """With p adjusted over the differences for the same class."""
    families = {of: [d.p for d in differences if d.of == of] for of in {d.of for d in differences}}
    adjusted = {of: iter(holm(ps)) for of, ps in families.items()}
    return [replace(d, p_adjusted=next(adjusted[d.of])) for d in differences]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval else None


def _class_json(result: ClassResult) -> Json:
    return {
        "class": result.name,
        "auroc": result.auroc.value,
        "ci95": _listed(result.auroc.ci95),
        "bound": result.bound,
        "sensitivity": result.sensitivity.value,
        "sensitivity_ci95": _listed(result.sensitivity.ci95),
        "specificity": result.specificity.value,
        "specificity_ci95": _listed(result.specificity.ci95),
        "positives": result.positives,
        "negatives": result.negatives,
        "positive_patients": result.positive_patients,
        "negative_patients": result.negative_patients,
    }
