"""A comparison as one long table for other software: one row per model, cases, class and measure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from fedai.results import POOLED, ClassResult, Comparison, Measure, Result
from fedai.subgroup_results import SubgroupResult

HEADER = (
    "model",
    "against",
    "cases_of",
    "class",
    "measure",
    "value",
    "ci95_low",
    "ci95_high",
    "p",
    "p_adjusted",
)
Row = tuple[object, ...]


def as_csv(comparison: Comparison) -> str:
    """CSV with a header; numbers to the last digit, empty where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(comparison))
    return text.getvalue()


def _rows(comparison: Comparison) -> Iterator[Row]:
    for model in comparison.models:
        for where, result in ((POOLED, model.pooled), *model.sites.items()):
            for of, name, measure in _measures(result):
                yield (model.name, "", where, of, name, *_numbers(measure), "", "")
    for d in comparison.differences:
        yield (d.a, d.b, d.cases_of, d.of, "auroc difference", *_numbers(Measure(d.difference, d.ci95)),
               *map(_number, (d.p, d.p_adjusted)))  # fmt: skip
    for s in comparison.subgroups:
        where = f"{s.variable}={s.level or 'all'}"
        for of, name, measure in _of_subgroup(s):
            yield (s.model, "", where, of, name, *_numbers(measure), "", "")
    for c in comparison.calls:
        yield (c.a, c.b, c.cases_of, c.of, f"right calls difference, {c.on}", _number(c.difference), "", "",
               *map(_number, (c.p, c.p_adjusted)))  # fmt: skip


def _measures(result: Result) -> Iterator[tuple[str, str, Measure]]:
    yield "", "cases", Measure(float(result.cases))
    yield "", "patients", Measure(float(result.patients))
    yield "", "brier", result.brier
    if len(result.classes) > 1:
        yield "", "mean auroc", result.auroc
    for of in result.classes:
        yield from ((of.name, name, measure) for name, measure in _of_class(of))


def _of_class(of: ClassResult) -> Iterator[tuple[str, Measure]]:
    yield "auroc", of.auroc
    yield "auroc bound", Measure(of.bound)
    yield "auprc", of.auprc
    yield "sensitivity", of.sensitivity
    yield "specificity", of.specificity
    yield "ppv", Measure(of.share(0, 1))
    yield "npv", Measure(of.share(2, 3))
    yield "calibration error", Measure(of.error)
    yield "calibration slope", of.slope
    yield "calibration intercept", of.intercept
    for n in of.net_benefits:
        yield f"net benefit at {n.threshold:g}", n.model


def _of_subgroup(s: SubgroupResult) -> Iterator[tuple[str, str, Measure]]:
    yield "", "cases", Measure(float(s.cases))
    yield "", "patients", Measure(float(s.patients))
    if len(s.classes) > 1:
        yield "", "mean auroc within sites", s.auroc
    for c in s.classes:
        yield c.name, "auroc within sites", c.auroc
        yield c.name, "sensitivity", c.sensitivity
        yield c.name, "specificity", c.specificity


def _numbers(measure: Measure) -> tuple[str, str, str]:
    low, high = measure.ci95 or (None, None)
    return _number(measure.value), _number(low), _number(high)


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
