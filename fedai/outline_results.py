"""From a segmentation's judgement to numbers with intervals: every model, pooled and per site, by structure.

Intervals are 95% and treat patients, not images, as the unit. Differences are paired: all models outlined the
same cases. `p_adjusted` is Holm's over the models compared on the same cases for the same structure and
measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from fedai.errors import ConfigError
from fedai.measures import across
from fedai.meta_analysis import RandomEffects
from fedai.metrics import ClusteredMean
from fedai.outline_judgement import OutlineJudgement
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.outlines import FOUND, MEASURES
from fedai.results import (
    FEDERATED,
    FEWEST,
    LOCAL,
    MEAN_OF_LOCAL,
    POOLED,
    Measure,
    measured,
    shares_json,
    worst,
    worst_json,
)
from fedai.signed_ranks import SignedRanks, pair_of, signed_ranks
from fedai.statistics import NO_VARIANCE, Interval, holm, mean_interval, wald_interval

SHARES = ("dice", "nsd")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
UNRANKED = (
    "no Wilcoxon test between models of different runs: what left the sites tells how far patients differ "
    "together, not which way each does; give one run's model to the other as --reference"
)
Json = dict[str, Any]


@dataclass(frozen=True)
class StructureResult:
    """One model's outlines of one structure on some cases. `means`: by name of the measure, over the cases
    where it is defined, `cases` of `patients`; `quantiles`: at QUANTILES, to half a bin of the sketch,
    infinite beyond its ends. `found`: cases by who outlines the structure (`outlines.FOUND`)."""

    name: str
    means: Mapping[str, Measure]
    quantiles: Mapping[str, tuple[float | None, ...]]
    cases: Mapping[str, int]
    patients: Mapping[str, int]
    found: Mapping[str, int]

    def median(self, name: str) -> float | None:
        """None beyond the sketch's ends too."""
        return _finite(self.quantiles[name][QUANTILES.index(0.5)])

    def withheld(self, name: str) -> int:
        """Cases for which a measure is defined and of which sites tell nothing: too few patients have it."""
        alone = 0 if name == "hd95_mm" else self.found["model_alone"] + self.found["reference_alone"]
        return self.found["both"] + alone - self.cases[name]

    def to_json(self) -> Json:
        values: Json = {}
        for name in MEASURES:
            values |= measured(name, self.means[name])
            values |= {f"{name}_median": self.median(name), f"{name}_cases": self.cases[name]}
            values |= {f"{name}_patients": self.patients[name]}
            shares = zip(QUANTILES, self.quantiles[name], strict=True)
            values |= {f"{name}_quantiles": {f"{share:g}": _finite(value) for share, value in shares}}
        return {"structure": self.name, **values, "found": dict(self.found)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class OutlineResults:
    """One model: all sites' cases together, and each site's, by structure. `across`: by structure, random
    effects over sites of the mean Dice's logit, and the sites that they leave out.
    """

    name: str
    pooled: tuple[StructureResult, ...]
    sites: Mapping[str, tuple[StructureResult, ...]]
    across: tuple[tuple[RandomEffects | None, tuple[str, ...]], ...] = ()

    @property
    def trained_at(self) -> str:
        """The site of a local-only model, else nothing; of joined runs each name begins with the run."""
        own = self.name.rpartition("/")[2]
        return own.removeprefix(LOCAL) if own.startswith(LOCAL) else ""

    def worst(self, structure: int) -> tuple[str, Measure] | None:
        """The site of the lowest mean Dice."""
        return worst({site: found[structure].means["dice"] for site, found in self.sites.items()})

    def to_json(self) -> Json:
        structures = [one.name for one in self.pooled]
        return {
            "pooled": [one.to_json() for one in self.pooled],
            "sites": {site: [one.to_json() for one in found] for site, found in self.sites.items()},
            "worst_site": {name: worst_json("dice", self.worst(s)) for s, name in enumerate(structures)},
            "across_sites": {
                name: shares_json(*one) for name, one in zip(structures, self.across, strict=True)
            },
        }


@dataclass(frozen=True)
class OutlineDifference:
    """A measure of model `a` minus that of `b` on the same cases, `of` a structure. `ranks`: Wilcoxon's test
    of patients' differences in Dice, between two models of one run.
    """

    a: str
    b: str
    cases_of: str
    of: str
    measure: str
    difference: float
    se: float | None = None
    ci95: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    ranks: SignedRanks | None = None

    @property
    def is_between_runs(self) -> bool:
        """Whether no site had both models' values at hand; of joined runs each name begins with the run."""
        return self.b != MEAN_OF_LOCAL and self.a.rpartition("/")[0] != self.b.rpartition("/")[0]

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "cases_of": self.cases_of,
            "structure": self.of,
            "measure": self.measure,
            "difference": self.difference,
            "se": self.se,
            "ci95": list(self.ci95) if self.ci95 else None,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "wilcoxon": self.ranks.to_json() if self.ranks else None,
            **({"wilcoxon_lacks": UNRANKED} if self.measure == "dice" and self.is_between_runs else {}),
        }


@dataclass(frozen=True)
class OutlineComparison:
    """What `fedai compare` prints and `fedai report` shows of a segmentation's run."""

    structures: tuple[str, ...]
    tolerance_mm: float
    models: tuple[OutlineResults, ...]
    differences: tuple[OutlineDifference, ...]
    against: str = FEDERATED

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.models[0].sites)

    def model(self, name: str) -> OutlineResults | None:
        return next((one for one in self.models if one.name == name), None)

    def sibling(self, name: str) -> str:
        """What a model is called that is of the same run as `against`."""
        run = self.against.rpartition("/")[0]
        return f"{run}/{name}" if run else name

    def to_json(self) -> Json:
        return {
            "task": "segmentation",
            "structures": list(self.structures),
            "tolerance_mm": self.tolerance_mm,
            "against": self.against,
            "models": {one.name: one.to_json() for one in self.models},
            "differences": [one.to_json() for one in self.differences],
        }


def compare_outlines(judgement: OutlineJudgement, *, against: str | None = None) -> OutlineComparison:
    """All results and differences that follow from a judgement. `against`: the model that all others are
    compared with; else `federated`. Raises ConfigError for an unknown model.
    """
    first = FEDERATED if against is None else against
    if against is not None and against not in judgement.models:
        raise ConfigError(f"there is no model {against!r}", hint=f"models: {', '.join(judgement.models)}")
    merged = {model: judgement.merged(model) for model in judgement.models}
    populations = [(POOLED, merged, judgement.linked())]
    populations += [(site, dict(judgement.scores[site]), judgement.links[site]) for site in judgement.sites]
    names = judgement.structures
    models = tuple(
        OutlineResults(
            model,
            _results(merged[model], names),
            {site: _results(judgement.scores[site][model], names) for site in judgement.sites},
            tuple(_across(judgement, model, s) for s in range(len(names))),
        )
        for model in judgement.models
    )
    differences = tuple(d for one in populations for d in _differences(first, names, *one))
    return OutlineComparison(names, judgement.tolerance_mm, models, differences, first)


def _results(score: OutlineScore, structures: Sequence[str]) -> tuple[StructureResult, ...]:
    return tuple(_result(score, s, name) for s, name in enumerate(structures))


def _result(score: OutlineScore, s: int, structure: str) -> StructureResult:
    means = {name: score.mean(s, name) for name in MEASURES}
    return StructureResult(
        structure,
        {name: _measure(name, found) for name, found in means.items()},
        {name: tuple(score.quantile(s, name, share) for share in QUANTILES) for name in MEASURES},
        {name: found.cases for name, found in means.items()},
        {name: found.patients for name, found in means.items()},
        dict(zip(FOUND, map(int, score.found[s]), strict=True)),
    )


def _measure(name: str, found: ClusteredMean) -> Measure:
    """A mean with its interval: shares on the logit scale, so within 0 and 1; distances not below 0."""
    if not found.cases:
        return Measure(None)
    if found.patients < FEWEST:
        return Measure(found.value)
    interval = mean_interval(found.value, found.squares, found.patients, found.cases)
    if name in SHARES:
        interval = wald_interval(found.value, _variance(found), found.patients - 1)
    elif interval and name == "hd95_mm":
        interval = max(0.0, interval[0]), interval[1]
    return Measure(found.value, interval)


def _across(judgement: OutlineJudgement, model: str, s: int) -> tuple[RandomEffects | None, tuple[str, ...]]:
    """Random effects over the sites of which the mean Dice has an interval, and the others."""
    means = {site: judgement.scores[site][model].mean(s, "dice") for site in judgement.sites}
    logits = {site: logit for site, mean in means.items() if (logit := _logit(mean))}
    return across([*logits.values()]), tuple(site for site in means if site not in logits)


def _logit(found: ClusteredMean) -> tuple[float, float] | None:
    """Of a mean share with patients enough, and its variance."""
    if found.patients < FEWEST or not 0 < found.value < 1:
        return None
    variance, slope = _variance(found), found.value * (1 - found.value)
    return (
        (math.log(found.value / (1 - found.value)), variance / slope**2) if variance > NO_VARIANCE else None
    )


def _variance(found: ClusteredMean) -> float:
    """Of a mean, clustered by patient; 0 where all cases are alike."""
    interval = mean_interval(found.value, found.squares, found.patients, found.cases)
    width = interval[1] - interval[0] if interval else 0.0
    return float(width / 2 / stdtrit(found.patients - 1, 0.975)) ** 2


def _differences(
    first: str, structures: Sequence[str], where: str, scores: Mapping[str, OutlineScore], links: OutlineLinks
) -> Iterator[OutlineDifference]:
    """The first model against the mean of the local-only models of its run, and against every other one."""
    models = list(scores)
    if first not in models:
        return
    run = first.rpartition("/")[0]
    start = f"{run}/{LOCAL}" if run else LOCAL
    local = [name for name in models if name.startswith(start)]
    asked = {name: {first: 1.0, name: -1.0} for name in models if name != first}
    if len(local) > 1 and first not in local:
        asked = {MEAN_OF_LOCAL: {first: 1.0, **dict.fromkeys(local, -1.0 / len(local))}, **asked}
    for (s, structure), measure in ((one, name) for one in enumerate(structures) for name in MEASURES):
        found = [
            OutlineDifference(first, other, where, structure, measure, *contrast)
            for other, weights in asked.items()
            if (contrast := _contrast(weights, scores, links, s, MEASURES.index(measure)))
        ]
        if measure == "dice":
            found = _ranked(found, models, links, s)
        adjusted = holm([one.p for one in found])
        yield from (replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True))


def _ranked(
    found: Sequence[OutlineDifference], models: Sequence[str], links: OutlineLinks, s: int
) -> list[OutlineDifference]:
    """With Wilcoxon's test where the patients' differences are known, adjusted over them."""
    tests = [_ranks(models.index(d.a), models.index(d.b), links, s) if d.b in models else None for d in found]
    adjusted = iter(holm([test.p for test in tests if test]))
    return [
        replace(d, ranks=replace(test, p_adjusted=next(adjusted))) if test else d
        for d, test in zip(found, tests, strict=True)
    ]


def _ranks(a: int, b: int, links: OutlineLinks, s: int) -> SignedRanks | None:
    """No p with fewer than FEWEST patients who differ: the normal distribution isn't near enough."""
    counts = links.differences[s, pair_of(min(a, b), max(a, b), links.models)]
    if (counts < 0).any():
        return None
    test = signed_ranks(counts if a < b else counts[::-1])
    return test if test.patients >= FEWEST else replace(test, p=None)


def _contrast(
    weights: Mapping[str, float], scores: Mapping[str, OutlineScore], links: OutlineLinks, s: int, v: int
) -> tuple[float, float | None, Interval | None, float | None] | None:
    """Of sum(weights * means): value, standard error, interval and p (on t), from what each patient adds to
    the sums and numbers of cases (the ratio estimator, linearised). None where a model has no case.
    """
    models = list(scores)
    difference, influence = 0.0, np.zeros(2 * len(models))
    for name, weight in weights.items():
        total, cases = float(scores[name].sums[s, v]), int(scores[name].cases[s, v])
        if not cases:
            return None
        difference += weight * total / cases
        place = models.index(name)
        influence[[place, len(models) + place]] = weight / cases, -weight * total / cases**2
    patients = int(links.patients[s, v])
    if patients < FEWEST:
        return difference, None, None, None
    variance = links.squares(s, v, influence) * patients / (patients - 1)
    if not variance > NO_VARIANCE:
        return difference, None, None, None
    se = math.sqrt(variance)
    reach = float(stdtrit(patients - 1, 0.975)) * se
    p = 2 * float(stdtr(patients - 1, -abs(difference) / se))
    return difference, se, (difference - reach, difference + reach), p
