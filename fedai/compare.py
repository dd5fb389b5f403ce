"""From a judgement to the numbers of a paper's table: every model, pooled and per site, and how they differ.

Intervals are 95% and treat patients, not images, as the unit. Differences are paired: all models judge the
same cases. `p_adjusted` is Holm's over the models compared on the same cases for the same class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from fedai.calibration import recalibrate, treat_all, variances
from fedai.errors import ConfigError
from fedai.judgement import Judgement
from fedai.linking import JointCalls, Linked
from fedai.measures import across, brier_measure, known, logit_of, precision_measure
from fedai.metrics import Floats
from fedai.precision_recall import average_precision, average_precision_bound
from fedai.results import (
    FEDERATED,
    FEWEST,
    LOCAL,
    MACRO,
    MEAN_OF_LOCAL,
    POOLED,
    UNKNOWN,
    ClassResult,
    Comparison,
    Difference,
    McNemar,
    Measure,
    ModelResults,
    NetBenefit,
    Result,
)
from fedai.score import Score
from fedai.statistics import (
    Contrast,
    Interval,
    auroc_interval,
    call_interval,
    combined_variance,
    contrast,
    covariance_parts,
    degrees_of_freedom,
    disjoint_pairs,
    holm,
    mcnemar,
    mean_interval,
    non_inferiority,
    score_interval,
)

ON = {"all": (0, 1), "positives": (1,), "negatives": (0,)}


def compare(judgement: Judgement, *, against: str | None = None, margin: float | None = None) -> Comparison:
    """All results and differences that follow from a judgement.

    `against`: the model that all others are compared with; else `federated`. `margin`: AUROC by which it may
    be worse and still count as no worse; fixed beforehand. Raises ConfigError for an unknown model.
    """
    first = FEDERATED if against is None else against
    if against is not None and against not in judgement.models:
        raise ConfigError(f"there is no model {against!r}", hint=f"models: {', '.join(judgement.models)}")
    calls = list(judgement.calls.values())
    pooled = _Population(judgement, POOLED, judgement.merged, judgement.pooled, sum(calls[1:], calls[0]))
    sites = [
        _Population(judgement, site, judgement.scores[site].__getitem__, judgement.own[site], calls_there)
        for site, calls_there in judgement.calls.items()
    ]
    models = [_model(name, row, pooled, sites) for row, name in enumerate(judgement.models)]
    populations = (pooled, *sites)
    differences = tuple(d for p in populations for d in p.differences(first, margin))
    paired = tuple(c for p in populations for c in p.paired_calls(first))
    return Comparison(
        judgement.classes, judgement.threshold, tuple(models), differences, paired, first, margin
    )


def _model(name: str, row: int, pooled: _Population, sites: Sequence[_Population]) -> ModelResults:
    results = {site.name: site.result(row) for site in sites}
    logits = {site.name: found for site in sites if (found := site.logit(row))}
    left_out = tuple(site for site in results if site not in logits)
    return ModelResults(name, pooled.result(row), results, across([*logits.values()]), left_out)


class _Population:
    """The cases of one site, or of all: sums, covariance, and what can be said of each model."""

    def __init__(
        self,
        judgement: Judgement,
        name: str,
        score_of: Callable[[str], Score],
        linked: Linked,
        calls: JointCalls,
    ) -> None:
        self.judgement, self.name, self.linked, self.calls = judgement, name, linked, calls
        self.sums = linked.placements
        self.shape = (len(judgement.models), len(judgement.tasks))
        self.scores = [score_of(m) for m in judgement.models]
        self.aurocs = np.stack([score.histogram.auroc() for score in self.scores])
        self.parts = covariance_parts(self.sums)
        self.covariance = self.parts.sum(axis=(0, 1))

    def result(self, row: int) -> Result:
        score = self.scores[row]
        classes = tuple(self._class_result(score, row, k) for k in range(self.shape[1]))
        present = [k for k in range(self.shape[1]) if np.isfinite(self.aurocs[row, k])]
        bounds = score.histogram.auroc_bound()[present]
        return Result(
            classes[0].auroc if len(classes) == 1 else self._macro(row, present),
            float(bounds.mean()) if present else None,
            tuple(self.judgement.tasks[k] for k in present),
            classes,
            brier_measure(score.brier, 1.0 if len(classes) == 1 else 2.0),
            tuple(tuple(int(n) for n in line) for line in score.confusion),
            score.brier.cases,
            self.sums.patients,
        )

    def _class_result(self, score: Score, row: int, k: int) -> ClassResult:
        cases, members = score.histogram.cases[k], self.sums.members[:, k]
        counts = score.histogram.counts[k]
        slope, intercept = self._calibration(score, row, k)
        squares = float(self.linked.precisions[row * self.shape[1] + k])
        precision = precision_measure(
            average_precision(counts), squares, self.sums.patients, self._members(k)
        )
        both = bool(cases.min() > 0)  # with one kind of case alone, precision and net benefit say nothing
        if not both:
            precision = UNKNOWN
        return ClassResult(
            self.judgement.tasks[k],
            self._auroc(row, [k]),
            known(score.histogram.auroc_bound()[k]),
            precision if self._enough([k]) else Measure(precision.value),
            known(average_precision_bound(counts)) if both else None,
            Measure(known(score.calls.sensitivity()[k]), call_interval(score.calls, k, 1)),
            Measure(known(score.calls.specificity()[k]), call_interval(score.calls, k, 0)),
            (*(int(n) for n in score.calls.counts[k]),),  # type: ignore[arg-type]
            known(score.calibration.error()[k]),
            slope,
            intercept,
            tuple(self._net_benefits(score, k)) if both else (),
            int(cases[1]),
            int(cases[0]),
            int(members[1]),
            int(members[0]),
        )

    def _calibration(self, score: Score, row: int, k: int) -> tuple[Measure, Measure]:
        """Slope and intercept, on the normal distribution."""
        counts, entry = score.histogram.counts[k], row * self.shape[1] + k
        fit = recalibrate(counts)
        if not fit.known:
            return UNKNOWN, UNKNOWN
        spread = variances(counts, fit, self.linked.recalibrations[entry], self.sums.patients)
        pairs = zip((fit.slope, fit.intercept), spread, strict=True)
        slope, intercept = (Measure(v, _normal(v, w) if self._enough([k]) else None) for v, w in pairs)
        return slope, intercept

    def _net_benefits(self, score: Score, k: int) -> Iterable[NetBenefit]:
        curve, patients = score.decision, score.brier.patients
        values, nobody = curve.net_benefit()[k], treat_all(score.histogram.cases[k], curve.thresholds)
        for t, threshold in enumerate(curve.thresholds):
            if not curve.cases:
                return
            ci95 = mean_interval(float(values[t]), curve.squares_of(k, t), patients, curve.cases)
            yield NetBenefit(threshold, Measure(float(values[t]), ci95), float(nobody[t]))

    def _members(self, k: int) -> tuple[int, int]:
        return int(self.sums.members[0, k]), int(self.sums.members[1, k])

    def _enough(self, columns: Sequence[int]) -> bool:
        """Whether there are patients enough on each side for an interval."""
        return bool((self.sums.members[:, columns] >= FEWEST).all())

    def _macro(self, row: int, present: Sequence[int]) -> Measure:
        return self._auroc(row, present) if present else UNKNOWN

    def logit(self, row: int) -> tuple[float, float] | None:
        """Of a single comparison's AUROC with patients enough, for random effects over sites."""
        if self.shape[1] > 1 or not self._enough([0]):
            return None
        cases = self.sums.cases[:, 0].tolist()
        return logit_of(float(self.aurocs[row, 0]), float(self.covariance[row, row]), cases)

    def _auroc(self, row: int, columns: Sequence[int]) -> Measure:
        """The mean AUROC over some classes."""
        value = float(self.aurocs[row, columns].mean())
        weights = self._weights({row: 1.0}, columns)
        variance = combined_variance(weights, self.covariance)
        return Measure(known(value), self._interval(value, variance, self._degrees(weights), columns))

    def _interval(self, value: float, variance: float, df: float, columns: Sequence[int]) -> Interval | None:
        if not self._enough(columns) and value not in (0.0, 1.0):
            return None
        cases, members = self.sums.cases[:, columns], self.sums.members[:, columns]
        if len(columns) == 1 and value not in (0.0, 1.0):
            return score_interval(value, variance, df, cases[:, 0].tolist(), members[:, 0].tolist())
        return auroc_interval(value, variance, disjoint_pairs(members, self.sums.patients), df)

    def _degrees(self, weights: Floats) -> float:
        return degrees_of_freedom(weights, self.parts, self.sums.members)

    def _weights(self, rows: Mapping[int, float], columns: Sequence[int]) -> Floats:
        weights = np.zeros(self.shape)
        for row, weight in rows.items():
            weights[row, columns] += weight / len(columns)
        return weights.ravel()

    def differences(self, first: str, margin: float | None) -> Iterable[Difference]:
        """The first model against the mean of the local-only models of its run, and every other model."""
        models = self.judgement.models
        if first not in models:
            return
        row, run = models.index(first), first.rpartition("/")[0]
        start = f"{run}/{LOCAL}" if run else LOCAL
        local = [i for i, name in enumerate(models) if name.startswith(start)]
        asked = {name: {row: 1.0, i: -1.0} for i, name in enumerate(models) if i != row}
        if len(local) > 1 and row not in local:
            asked = {MEAN_OF_LOCAL: {row: 1.0, **{i: -1.0 / len(local) for i in local}}, **asked}
        found = [d for name, rows in asked.items() for d in self._against(first, name, rows)]
        yield from _no_worse(_adjusted(found, lambda d: d.of), margin)

    def _against(self, first: str, other: str, rows: Mapping[int, float]) -> Iterable[Difference]:
        tasks = self.judgement.tasks
        present = np.flatnonzero(np.isfinite(self.aurocs[list(rows)]).all(axis=0)).tolist()
        questions = [(tasks[k], [k]) for k in present]
        if len(tasks) > 1 and present:
            questions.insert(0, (MACRO, present))
        for of, columns in questions:
            weights = self._weights(rows, columns)
            found = contrast(weights, self.aurocs.ravel(), self.covariance, self._degrees(weights))
            if found and not self._enough(columns):
                found = Contrast(found.difference)
            if found:
                numbers = (found.difference, found.se, found.ci95, found.p, found.df)
                yield Difference(first, other, self.name, of, *numbers)

    def paired_calls(self, first: str) -> Iterable[McNemar]:
        """McNemar's tests at the threshold of the first model against every other one."""
        models, k = self.judgement.models, self.shape[1]
        if first not in models:
            return
        row = models.index(first)
        others = [i for i in range(len(models)) if i != row]
        asked = itertools.product(others, range(k), ON)
        found = [self._mcnemar(row, i, column, on) for i, column, on in asked]
        yield from _adjusted(found, lambda c: (c.of, c.on))

    def _mcnemar(self, a: int, b: int, column: int, on: str) -> McNemar:
        k, q = self.shape[1], self.calls.both.shape[1]
        i, j = a * k + column, b * k + column
        both, sides = self.calls.both, ON[on]
        right = [sum(int(both[s, e, e]) for s in sides) for e in (i, j)]
        together = sum(int(both[s, i, j]) for s in sides)
        only = [n - together for n in right] if all(both[s, i, j] >= 0 for s in sides) else [None, None]
        weights = np.zeros(2 * q)
        for s in sides:
            weights[[s * q + i, s * q + j]] = 1.0, -1.0
        p = mcnemar(right[0] - right[1], float(weights @ self.calls.products @ weights))
        cases = sum(int(self.calls.cases[s, column]) for s in sides)
        first, other, of = self.judgement.models[a], self.judgement.models[b], self.judgement.tasks[column]
        difference = (right[0] - right[1]) / cases if cases else None
        return McNemar(first, other, self.name, of, on, only[0], only[1], difference, p)


def _normal(value: float, variance: float) -> Interval | None:
    reach = 1.959963984540054 * math.sqrt(variance) if variance > 0 else math.nan
    return (value - reach, value + reach) if math.isfinite(reach) else None


Tested = TypeVar("Tested", Difference, McNemar)


def _adjusted(tests: Sequence[Tested], family: Callable[[Tested], object]) -> list[Tested]:
    """With p adjusted over each family."""
    families: dict[object, list[float | None]] = {}
    for test in tests:
        families.setdefault(family(test), []).append(test.p)
    adjusted = {of: iter(holm(ps)) for of, ps in families.items()}
    return [replace(test, p_adjusted=next(adjusted[family(test)])) for test in tests]


def _no_worse(differences: Sequence[Difference], margin: float | None) -> list[Difference]:
    """With one-sided tests against the margin, adjusted over each family."""
    if margin is None:
        return list(differences)
    tests = [non_inferiority(Contrast(d.difference, d.se, d.ci95, d.p, d.df), margin) for d in differences]
    made = [replace(d, p=p) for d, p in zip(differences, tests, strict=True)]
    adjusted = _adjusted(made, lambda d: d.of)
    pairs = zip(differences, adjusted, strict=True)
    return [replace(d, non_inferior=test.p_adjusted) for d, test in pairs]
