"""Every model's results by subgroup, from what sites tell of them.

Sensitivity and specificity are of all cases that are told of. The AUROC is over the pairs within sites: a
site's weight is its number of pairs of a positive and a negative case. With it stands the same of all test
cases at the sites that tell of any subgroup of the variable, so that like is compared with like.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedai.judgement import Judgement
from fedai.measures import known
from fedai.metrics import Floats
from fedai.placements import PlacementSums
from fedai.results import FEWEST, UNKNOWN, Comparison, Json, Measure, listed, measured, worst
from fedai.statistics import (
    NO_VARIANCE,
    Interval,
    auroc_interval,
    call_interval,
    combined_variance,
    covariance_parts,
    disjoint_pairs,
    stratified_interval,
)
from fedai.subgroups import Subgroup


@dataclass(frozen=True)
class SubgroupClass:
    """One class against the rest. `counts`: tp, fp, tn, fn at the threshold."""

    name: str
    auroc: Measure
    sensitivity: Measure
    specificity: Measure
    counts: tuple[int, int, int, int]
    positive_patients: int
    negative_patients: int

    def to_json(self) -> Json:
        tp, fp, tn, fn = self.counts
        return {
            "class": self.name,
            "auroc": self.auroc.value,
            "ci95": listed(self.auroc.ci95),
            **measured("sensitivity", self.sensitivity),
            **measured("specificity", self.specificity),
            "confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn},
            "positive_patients": self.positive_patients,
            "negative_patients": self.negative_patients,
        }


@dataclass(frozen=True)
class SubgroupResult:
    """One model on one subgroup, of the `sites` that tell of it; `level` is empty for all their test cases.
    `auroc`: within sites; the mean over the `averaged` classes, which have one."""

    model: str
    variable: str
    level: str
    sites: tuple[str, ...]
    cases: int
    patients: int
    auroc: Measure
    averaged: tuple[str, ...]
    classes: tuple[SubgroupClass, ...]

    def to_json(self) -> Json:
        return {
            "model": self.model,
            "variable": self.variable,
            "level": self.level or None,
            "sites": list(self.sites),
            "cases": self.cases,
            "patients": self.patients,
            "auroc_within_sites": self.auroc.value,
            "ci95": listed(self.auroc.ci95),
            "averaged": list(self.averaged),
            "classes": [c.to_json() for c in self.classes],
        }


def subgroup_results(judgement: Judgement) -> tuple[SubgroupResult, ...]:
    """By variable, then model, then level; levels that no site tells of are left out."""
    start, found = 0, []
    for variable, levels in judgement.levels.items():
        for row, model in enumerate(judgement.models):
            told = {s: by[model][start : start + len(levels)] for s, by in judgement.subgroups.items()}
            found += list(_of_variable(judgement, row, variable, levels, told))
        start += len(levels)
    return tuple(found)


def _of_variable(
    judgement: Judgement,
    row: int,
    variable: str,
    levels: Sequence[str],
    told: Mapping[str, Sequence[Subgroup]],
) -> Iterator[SubgroupResult]:
    model = judgement.models[row]
    telling = [site for site, of in told.items() if any(one.patients for one in of)]
    if telling:
        whole = {site: _all_cases(judgement, row, site) for site in telling}
        yield _result(judgement.tasks, model, variable, "", whole)
    for i, level in enumerate(levels):
        parts = {site: of[i] for site, of in told.items() if of[i].patients}
        if parts:
            yield _result(judgement.tasks, model, variable, level, parts)


def _all_cases(judgement: Judgement, row: int, site: str) -> Subgroup:
    """A model's calls and placements on all test cases of a site."""
    sums, k = judgement.own[site].placements, len(judgement.tasks)
    entries = np.arange(row * k, (row + 1) * k)
    both = np.concatenate([entries, sums.sums.shape[1] + entries])
    products = sums.products[np.ix_(both, both)]
    own = PlacementSums(products, sums.sums[:, entries], sums.cases, sums.members, sums.patients)
    return Subgroup(judgement.scores[site][judgement.models[row]].calls, own)


def _result(
    tasks: Sequence[str], model: str, variable: str, level: str, parts: Mapping[str, Subgroup]
) -> SubgroupResult:
    within = _WithinSites([part.placements for part in parts.values()])
    calls = functools.reduce(operator.add, [part.calls for part in parts.values()])
    classes = tuple(
        SubgroupClass(
            task,
            within.auroc([k]),
            Measure(known(calls.sensitivity()[k]), call_interval(calls, k, 1)),
            Measure(known(calls.specificity()[k]), call_interval(calls, k, 0)),
            (*(int(n) for n in calls.counts[k]),),  # type: ignore[arg-type]
            int(calls.patients[k, 1]),
            int(calls.patients[k, 0]),
        )
        for k, task in enumerate(tasks)
    )
    cases, patients = (sum(getattr(p, name) for p in parts.values()) for name in ("cases", "patients"))
    present = within.present
    auroc = classes[0].auroc if len(classes) == 1 else within.auroc(present)
    averaged = tuple(tasks[k] for k in present)
    return SubgroupResult(model, variable, level, tuple(parts), cases, patients, auroc, averaged, classes)


class _WithinSites:
    """AUROCs of one model over the pairs within sites. `shares`: [sites, K], of all pairs."""

    def __init__(self, sums: Sequence[PlacementSums]) -> None:
        pairs = np.array([s.cases.prod(axis=0) for s in sums], np.float64)
        total = pairs.sum(axis=0)
        self.sums, self.present = sums, np.flatnonzero(total).tolist()
        self.shares = pairs / np.where(total > 0, total, 1.0)
        self.aurocs = np.nan_to_num(np.array([s.auroc()[0] for s in sums]))
        self.parts = [covariance_parts(s) for s in sums]

    def auroc(self, columns: Sequence[int]) -> Measure:
        """The mean over some classes."""
        if not columns or not set(columns) <= set(self.present):
            return UNKNOWN
        value = float((self.shares * self.aurocs).sum(axis=0)[columns].mean())
        return Measure(value, self._interval(value, columns))

    def _interval(self, value: float, columns: Sequence[int]) -> Interval | None:
        weights = np.zeros_like(self.shares)
        weights[:, columns] = self.shares[:, columns] / len(columns)
        sites = [s for s in range(len(self.sums)) if weights[s].any()]
        members = np.sum([self.sums[s].members[:, columns] for s in sites], axis=0)
        if members.min() < FEWEST and value not in (0.0, 1.0):
            return None
        variance = sum(combined_variance(weights[s], self.parts[s].sum(axis=(0, 1))) for s in sites)
        df = self._degrees(weights, sites)
        if len(columns) > 1:
            found = [(self.sums[s].members[:, columns], self.sums[s].patients) for s in sites]
            return auroc_interval(value, variance, sum(disjoint_pairs(*one) for one in found), df)
        k = columns[0]
        sizes = [(self.sums[s].cases[:, k].tolist(), self.sums[s].members[:, k].tolist()) for s in sites]
        strata = [(float(weights[s, k]), *of) for s, of in zip(sites, sizes, strict=True)]
        return stratified_interval(value, variance, df, strata)

    def _degrees(self, weights: Floats, sites: Sequence[int]) -> float:
        """Welch and Satterthwaite's, over the two sides of each site."""
        own, free = [], []
        for s in sites:
            used = np.flatnonzero(weights[s])
            c = weights[s][used]
            own += [float(c @ self.parts[s][side, side][np.ix_(used, used)] @ c) for side in (0, 1)]
            free += (self.sums[s].members[:, used].min(axis=1) - 1).tolist()
        spread = np.array(own)
        if not np.isfinite(spread).all() or min(free) < 1 or not spread.sum() > NO_VARIANCE:
            return 1.0
        return float(spread.sum() ** 2 / (spread**2 / np.array(free)).sum())


def subgroups_of(comparison: Comparison, variable: str, model: str) -> dict[str, SubgroupResult]:
    """Level -> a model's result; first, under '', all test cases."""
    return {s.level: s for s in comparison.subgroups if (s.variable, s.model) == (variable, model)}


def variables_of(comparison: Comparison) -> tuple[str, ...]:
    """The variables of which a site tells any subgroup."""
    return tuple(dict.fromkeys(s.variable for s in comparison.subgroups))


def worst_subgroup(found: Mapping[str, SubgroupResult]) -> tuple[str, Measure] | None:
    """The subgroup of the lowest AUROC, of those that have an interval if there are any."""
    return worst({level: result.auroc for level, result in found.items() if level})
