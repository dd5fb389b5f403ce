"""The comparison as tables of plain text, and the spelling of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedai.compare import POOLED, Comparison, Difference, Measure
from fedai.statistics import Interval

MINUS = "\N{MINUS SIGN}"
UNIT = "Intervals treat patients, not images, as the unit."


@dataclass(frozen=True)
class Table:
    """A table of plain text: title, header, rows as wide as the header, and what a reader must know."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(comparison: Comparison, name: Callable[[str], str] = str) -> list[Table]:
    """What `fedai compare` prints: models on all cases, by class (if several), by site, and differences.

    `name` spells the name of a model.
    """
    made = [_table_of_models(comparison, name)]
    if len(comparison.tasks) > 1:
        made.append(_table_of_classes(comparison, name))
    return [*made, _table_of_sites(comparison, name), _table_of_differences(comparison, name)]


def _table_of_models(comparison: Comparison, name: Callable[[str], str]) -> Table:
    single = len(comparison.tasks) == 1
    rows = []
    for model in comparison.models:
        calls = [model.pooled.classes[0].sensitivity, model.pooled.classes[0].specificity] if single else []
        measures = [spell(m) for m in (model.pooled.auroc, *calls)]
        rows.append((name(model.name), *measures, number(model.pooled.brier), number(model.pooled.bound, 4)))
    first = comparison.models[0].pooled
    header = ("Model", f"{_headed(comparison)} (95% CI)")
    calls_header = ("Sensitivity (95% CI)", "Specificity (95% CI)") if single else ()
    title = f"All sites together: {first.cases} test cases of {first.patients} patients"
    note = f"Sensitivity and specificity at a score of {comparison.threshold:g} or more. " if single else ""
    return Table(title, (*header, *calls_header, "Brier", "Binning error ≤"), tuple(rows), note + UNIT)


def _auroc_of(comparison: Comparison) -> str:
    return "AUROC" if len(comparison.tasks) == 1 else "mean AUROC of the classes"


def _headed(comparison: Comparison) -> str:
    text = _auroc_of(comparison)
    return text[0].upper() + text[1:]


def _table_of_classes(comparison: Comparison, name: Callable[[str], str]) -> Table:
    rows = []
    for k, task in enumerate(comparison.tasks):
        results = [m.pooled.classes[k] for m in comparison.models]
        rows.append((task, str(results[0].positives), *(spell(r.auroc) for r in results)))
    header = ("Class", "Cases", *(name(m.name) for m in comparison.models))
    return Table("AUROC of each class against the rest, all sites together", header, tuple(rows))


def _table_of_sites(comparison: Comparison, name: Callable[[str], str]) -> Table:
    rows = []
    for site in comparison.sites:
        results = [m.sites[site] for m in comparison.models]
        rows.append(
            (site, str(results[0].cases), str(results[0].patients), *(spell(r.auroc) for r in results))
        )
    header = ("Test cases of", "Cases", "Patients", *(name(m.name) for m in comparison.models))
    note = "A dash: the site's cases can't tell."
    return Table(f"{_headed(comparison)} at each site (95% CI)", header, tuple(rows), note)


def _table_of_differences(comparison: Comparison, name: Callable[[str], str]) -> Table:
    rows = [
        (
            "all" if d.cases_of == POOLED else d.cases_of,
            f"{name(d.a)} {MINUS} {name(d.b)}",
            spell_difference(d),
            spell_p(d.p),
            spell_p(d.p_adjusted),
        )
        for d in comparison.differences
        if d.of == comparison.main
    ]
    header = ("Test cases of", "Models", "Difference (95% CI)", "p", "p adjusted")
    note = (
        "Paired by case, clustered by patient; p adjusted by Holm's method over the models compared on the "
        "same cases; intervals are not adjusted."
    )
    return Table(f"Differences in {_auroc_of(comparison)}", header, tuple(rows), note)


def number(value: float | None, digits: int = 3) -> str:
    """A value as text; a dash where it isn't known. What only rounds to 1 is printed as above 0.999."""
    if value is None:
        return "–"
    text, almost = f"{value:z.{digits}f}", 1 - 10**-digits
    return f">{almost:.{digits}f}" if almost < value < 1 and float(text) == 1 else text


def signed(value: float) -> str:
    """A difference with its sign; a true minus, and never minus zero."""
    return f"{value:+z.3f}".replace("-", MINUS)


def spell_range(interval: Interval) -> str:
    """As in 0.791 to 0.883."""
    return f"{number(interval[0])} to {number(interval[1])}"


def signed_range(interval: Interval) -> str:
    """As in −0.012 to +0.070."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def spell(measure: Measure) -> str:
    """Value and interval, as in 0.842 (0.791 to 0.883)."""
    if measure.value is None:
        return "–"
    return f"{number(measure.value)} ({spell_range(measure.ci95) if measure.ci95 else '–'})"


def spell_difference(difference: Difference) -> str:
    """Difference and interval with signs, as in +0.041 (+0.012 to +0.070)."""
    ci95 = difference.ci95
    return f"{signed(difference.difference)} ({signed_range(ci95) if ci95 else '–'})"


def spell_p(p: float | None) -> str:
    """p as journals print it."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
