"""What a comparison holds: every model's results, pooled and per site, and how the models differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedai.meta_analysis import RandomEffects
from fedai.statistics import Interval

if TYPE_CHECKING:
    from fedai.subgroup_results import SubgroupResult

FEDERATED = "federated"
CENTRALISED = "centralised"
LOCAL = "local:"
MEAN_OF_LOCAL = "mean of local"
POOLED = "pooled"
MACRO = "macro"
HARTUNG_KNAPP = "random effects (Paule-Mandel), Hartung-Knapp interval"
FEWEST = 10  # patients with a positive case, and with a negative one: below, intervals don't hold 95%

Json = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A value with its 95% interval, each None where the cases can't tell."""

    value: float | None
    ci95: Interval | None = None


UNKNOWN = Measure(None)


@dataclass(frozen=True)
class NetBenefit:
    """At one threshold of the decision curve: the model's, and that of calling every case positive."""

    threshold: float
    model: Measure
    treat_all: float


@dataclass(frozen=True)
class ClassResult:
    """One model's results for one class against the rest. `bound`, `auprc_bound`: largest possible binning
    errors. `error`: expected calibration error. `counts`: tp, fp, tn, fn at the threshold."""

    name: str
    auroc: Measure
    bound: float | None
    auprc: Measure
    auprc_bound: float | None
    sensitivity: Measure
    specificity: Measure
    counts: tuple[int, int, int, int]
    error: float | None
    slope: Measure
    intercept: Measure
    net_benefits: tuple[NetBenefit, ...]
    positives: int
    negatives: int
    positive_patients: int
    negative_patients: int

    @property
    def lack(self) -> str:
        """What there is too little of for intervals, with the number needed; nothing if there is enough."""
        return lack_of(self.negative_patients, self.positive_patients)

    def share(self, top: int, *others: int) -> float | None:
        """A share of the counts at the threshold, by their places."""
        whole = sum(self.counts[i] for i in (top, *others))
        return self.counts[top] / whole if whole else None

    def to_json(self) -> Json:
        tp, fp, tn, fn = self.counts
        return {
            "class": self.name,
            "auroc": self.auroc.value,
            "ci95": listed(self.auroc.ci95),
            "bound": self.bound,
            **measured("auprc", self.auprc),
            "auprc_bound": self.auprc_bound,
            **measured("sensitivity", self.sensitivity),
            **measured("specificity", self.specificity),
            "ppv": self.share(0, 1),
            "npv": self.share(2, 3),
            "confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn},
            "calibration_error": self.error,
            **measured("calibration_slope", self.slope),
            **measured("calibration_intercept", self.intercept),
            "decision_curve": [
                {"threshold": n.threshold, **measured("net_benefit", n.model), "treat_all": n.treat_all}
                for n in self.net_benefits
            ],
            "positives": self.positives,
            "negatives": self.negatives,
            "positive_patients": self.positive_patients,
            "negative_patients": self.negative_patients,
            "lacks": self.lack or None,
        }


@dataclass(frozen=True)
class Result:
    """One model's results on some cases. `auroc`: the mean over the `averaged` classes, which have one.
    `confusion`: true class by called class."""

    auroc: Measure
    bound: float | None
    averaged: tuple[str, ...]
    classes: tuple[ClassResult, ...]
    brier: Measure
    confusion: tuple[tuple[int, ...], ...]
    cases: int
    patients: int

    def to_json(self) -> Json:
        data: Json = {
            "auroc": self.auroc.value,
            "ci95": listed(self.auroc.ci95),
            "bound": self.bound,
            **measured("brier", self.brier),
            "cases": self.cases,
            "patients": self.patients,
        }
        if len(self.classes) == 1:
            return data | {k: v for k, v in self.classes[0].to_json().items() if k not in ("class", *data)}
        more = {"averaged": list(self.averaged), "confusion": [list(row) for row in self.confusion]}
        return data | more | {"classes": [c.to_json() for c in self.classes]}


@dataclass(frozen=True)
class ModelResults:
    """One model: all sites' cases together, and each site's. `across`: random effects over sites of the
    AUROC's logit, and the sites that it leaves out; one class only."""

    name: str
    pooled: Result
    sites: dict[str, Result]
    across: RandomEffects | None = None
    left_out: tuple[str, ...] = ()

    @property
    def trained_at(self) -> str:
        """The site of a local-only model, else nothing; of joined runs each name begins with the run."""
        own = self.name.rpartition("/")[2]
        return own.removeprefix(LOCAL) if own.startswith(LOCAL) else ""

    @property
    def worst(self) -> tuple[str, Measure] | None:
        """The site of the lowest AUROC."""
        return worst({site: result.auroc for site, result in self.sites.items()})

    def to_json(self) -> Json:
        site = {"site": self.trained_at} if self.trained_at else {}
        return site | {
            "pooled": self.pooled.to_json(),
            "sites": {name: result.to_json() for name, result in self.sites.items()},
            "worst_site": worst_json("auroc", self.worst),
            "across_sites": shares_json(self.across, self.left_out),
        }


@dataclass(frozen=True)
class Difference:
    """AUROC of `a` minus AUROC of `b` on the same cases, for one class or their mean (`macro`).
    `non_inferior`: p, one-sided and adjusted, of a being worse than b by the study's margin."""

    a: str
    b: str
    cases_of: str
    of: str
    difference: float
    se: float | None
    ci95: Interval | None
    p: float | None
    df: float | None = None
    p_adjusted: float | None = None
    non_inferior: float | None = None

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "cases_of": self.cases_of,
            "class": self.of,
            "difference": self.difference,
            "se": self.se,
            "ci95": listed(self.ci95),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "non_inferior_p_adjusted": self.non_inferior,
        }


@dataclass(frozen=True)
class McNemar:
    """Calls of `a` against those of `b` at the threshold, `on` all, positive or negative cases of a class.

    `a_only`, `b_only`: cases that one model alone calls rightly; None between runs. `difference`: of the
    shares called rightly."""

    a: str
    b: str
    cases_of: str
    of: str
    on: str
    a_only: int | None
    b_only: int | None
    difference: float | None
    p: float | None
    p_adjusted: float | None = None

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "cases_of": self.cases_of,
            "class": self.of,
            "on": self.on,
            "a_only_right": self.a_only,
            "b_only_right": self.b_only,
            "difference": self.difference,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True)
class Comparison:
    """What `fedai compare` prints and `fedai report` draws. `against`: what the others are compared with."""

    classes: tuple[str, ...]
    threshold: float
    models: tuple[ModelResults, ...]
    differences: tuple[Difference, ...]
    calls: tuple[McNemar, ...] = ()
    against: str = FEDERATED
    margin: float | None = None
    subgroups: tuple[SubgroupResult, ...] = ()

    def model(self, name: str) -> ModelResults | None:
        return next((m for m in self.models if m.name == name), None)

    def sibling(self, name: str) -> str:
        """What a model is called that is of the same run as `against`."""
        run = self.against.rpartition("/")[0]
        return f"{run}/{name}" if run else name

    @property
    def main_model(self) -> ModelResults | None:
        """The model that all others are compared with, where it is one of them."""
        return self.model(self.against)

    @property
    def central(self) -> ModelResults | None:
        """The model of the same run that was trained on all data in one place."""
        return self.model(self.sibling(CENTRALISED))

    @property
    def local(self) -> tuple[ModelResults, ...]:
        """The local-only models of the same run."""
        return tuple(m for m in self.models if m.name.startswith(self.sibling(LOCAL)))

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
        """`local` (a list), `federated`, `centralised`, `others`, `differences`, `calls`; null where not
        known. Of several runs every model is in `others`, as RUN/MODEL."""
        federated, centralised = self.model(FEDERATED), self.model(CENTRALISED)
        local = [m for m in self.models if m.name.startswith(LOCAL)]
        named = {FEDERATED, CENTRALISED, *(m.name for m in local)}
        return {
            "classes": list(self.classes),
            "threshold": self.threshold,
            "against": self.against,
            "margin": self.margin,
            "local": [m.to_json() for m in local],
            "federated": federated.to_json() if federated else None,
            "centralised": centralised.to_json() if centralised else None,
            "others": {m.name: m.to_json() for m in self.models if m.name not in named},
            "differences": [d.to_json() for d in self.differences],
            "calls": [c.to_json() for c in self.calls],
            "subgroups": [s.to_json() for s in self.subgroups],
        }


def lack_of(negative: int, positive: int) -> str:
    """Which side has fewer patients than an interval needs, in words; nothing if none has."""
    lacks = [
        f"{have} patients with a {kind} case, {FEWEST} are needed"
        for have, kind in ((positive, "positive"), (negative, "negative"))
        if have < FEWEST
    ]
    return "; ".join(lacks)


def worst(sites: Mapping[str, Measure]) -> tuple[str, Measure] | None:
    """The site of the lowest value, whether it has an interval or too few patients for one."""
    known = {site: m for site, m in sites.items() if m.value is not None}
    return min(known.items(), key=lambda item: item[1].value or 0.0) if known else None


def listed(interval: Interval | None) -> list[float] | None:
    """As JSON has it."""
    return list(interval) if interval else None


def measured(name: str, measure: Measure) -> Json:
    """`name` and `name_ci95`."""
    return {name: measure.value, f"{name}_ci95": listed(measure.ci95)}


def worst_json(name: str, found: tuple[str, Measure] | None) -> Json | None:
    """Site, value under `name`, and `ci95`."""
    return {"site": found[0], name: found[1].value, "ci95": listed(found[1].ci95)} if found else None


def effects_json(effects: RandomEffects | None, left_out: tuple[str, ...]) -> Json | None:
    """Random effects over sites, on their own scale."""
    if effects is None:
        return None
    return {
        "sites": effects.sites,
        "estimate": effects.estimate,
        "ci95": listed(effects.ci95),
        "prediction95": listed(effects.prediction95),
        "tau": effects.tau,
        "i2": effects.i2,
        "q": effects.q,
        "left_out": list(left_out),
        "method": HARTUNG_KNAPP,
    }


def shares_json(effects: RandomEffects | None, left_out: tuple[str, ...]) -> Json | None:
    """As `effects_json`, with AUROCs or shares in place of their logits; `tau` stays on the logit scale."""
    data = effects_json(effects, left_out)
    if effects is None or data is None:
        return None
    estimate, ci95, predicted = back(effects)
    return data | {"estimate": estimate, "ci95": listed(ci95), "prediction95": listed(predicted)}


def back(effects: RandomEffects) -> tuple[float, Interval, Interval | None]:
    """Estimate, interval and prediction interval of logits, as AUROCs."""

    def auroc(x: float) -> float:
        return 0.5 * (1 + math.tanh(x / 2))

    low, high = effects.ci95
    predicted = effects.prediction95
    return (
        auroc(effects.estimate),
        (auroc(low), auroc(high)),
        (auroc(predicted[0]), auroc(predicted[1])) if predicted else None,
    )
