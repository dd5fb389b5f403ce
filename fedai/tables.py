"""The comparison as tables of plain text, and the spelling of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedai.meta_analysis import RandomEffects
from fedai.results import FEWEST, HARTUNG_KNAPP, POOLED, Comparison, Difference, Measure, back
from fedai.statistics import Interval

if TYPE_CHECKING:
    from fedai.outline_results import OutlineDifference

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
    """What `fedai compare` prints: models on all cases, by class (if several), calibration, by site, sites as
    a sample (if there are enough), differences, calls at the threshold.

    `name` spells the name of a model.
    """
    made = results_tables(comparison, name)
    made.append(_table_of_sites(comparison, name))
    if any(model.across for model in comparison.models):
        made.append(table_across(comparison.models, name))
    made.append(_table_of_differences(comparison, name))
    return [*made, table_of_calls(comparison, name)] if comparison.calls else made


def results_tables(comparison: Comparison, name: Callable[[str], str]) -> list[Table]:
    """Models on all cases, by class if there are several, and how far scores are probabilities."""
    several = [_table_of_classes(comparison, name)] if len(comparison.tasks) > 1 else []
    return [_table_of_models(comparison, name), *several, _table_of_calibration(comparison, name)]


def _table_of_models(comparison: Comparison, name: Callable[[str], str]) -> Table:
    single = len(comparison.tasks) == 1
    rows = []
    for model in comparison.models:
        measures = [spell(model.pooled.auroc)]
        if single:
            only = model.pooled.classes[0]
            measures += [spell(only.auprc), spell(only.sensitivity), spell(only.specificity)]
        rows.append((name(model.name), *measures, number(model.pooled.bound, 4)))
    first = comparison.models[0].pooled
    header = ("Model", f"{_headed(comparison)} (95% CI)")
    calls_header = ("AUPRC (95% CI)", "Sensitivity (95% CI)", "Specificity (95% CI)") if single else ()
    title = f"All sites together: {first.cases} test cases of {first.patients} patients"
    note = f"Sensitivity and specificity at a score of {comparison.threshold:g} or more. " if single else ""
    return Table(title, (*header, *calls_header, "Binning error ≤"), tuple(rows), note + UNIT)


def _table_of_calibration(comparison: Comparison, name: Callable[[str], str]) -> Table:
    single, rows = len(comparison.tasks) == 1, []
    for model in comparison.models:
        for result in model.pooled.classes:
            of = () if single else (result.name,)
            brier = (spell(model.pooled.brier),) if single else ()
            measures = (number(result.error), spell(result.slope), spell(result.intercept))
            rows.append((name(model.name), *of, *brier, *measures))
    header = ("Model", *(() if single else ("Class",)), *(("Brier (95% CI)",) if single else ()))
    more = ("Calibration error", "Slope (95% CI)", "Intercept (95% CI)")
    note = "Perfectly calibrated: error 0, slope 1, intercept 0. The error is over ten bins of equal width."
    return Table("Calibration, all sites together", (*header, *more), tuple(rows), note)


TRAINED_THERE = (
    "The models were trained at these sites, so a further hospital may do worse than is expected here."
)


class _Sampled(Protocol):
    """A model with random effects over sites, of runs or of score files."""

    @property
    def name(self) -> str: ...
    @property
    def across(self) -> RandomEffects | None: ...
    @property
    def left_out(self) -> Iterable[str]: ...


def table_across(
    models: Iterable[_Sampled], name: Callable[[str], str] = str, note: str = TRAINED_THERE
) -> Table:
    """Sites taken as a sample of hospitals."""
    rows = []
    for model in models:
        if model.across:
            estimate, ci95, predicted = back(model.across)
            told = spell_range(predicted) if predicted else "–"
            numbers = (
                str(model.across.sites),
                spell(Measure(estimate, ci95)),
                told,
                f"{model.across.i2:.0%}",
            )
            rows.append((name(model.name), *numbers, ", ".join(model.left_out) or "none"))
    header = ("Model", "Sites", "AUROC (95% CI)", "A further hospital (95%)", "I²", "Left out")
    return Table(f"Sites as a sample of hospitals: {HARTUNG_KNAPP}", header, tuple(rows), note)


def table_of_calls(comparison: Comparison, name: Callable[[str], str]) -> Table:
    """McNemar's tests on all sites' cases."""
    rows = []
    for c in comparison.calls:
        if c.cases_of == POOLED:
            of = () if len(comparison.tasks) == 1 else (c.of,)
            only = [str(n) if n is not None else "–" for n in (c.a_only, c.b_only)]
            told = "–" if c.difference is None else signed(c.difference)
            ps = (spell_p(c.p), spell_p(c.p_adjusted))
            rows.append((f"{name(c.a)} and {name(c.b)}", *of, c.on, *only, told, *ps))
    classes = () if len(comparison.tasks) == 1 else ("Class",)
    header = ("Models", *classes, "On", "First alone", "Second alone", "Difference", "p", "p adjusted")
    note = (
        "Cases that one model alone calls rightly, and the difference of the shares called rightly; on "
        "positives that is sensitivity, on negatives specificity. McNemar's test, clustered by patient; "
        "p adjusted by Holm's method over the models. Between runs the counts aren't known (–)."
    )
    title = f"Calls at a score of {comparison.threshold:g} or more, all sites together"
    return Table(title, header, tuple(rows), note)


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
    lowest = [
        f"{found[0]}: {number(found[1].value)}" if (found := m.worst) else "–" for m in comparison.models
    ]
    rows.append(("Worst site", "", "", *lowest))
    header = ("Test cases of", "Cases", "Patients", *(name(m.name) for m in comparison.models))
    note = (
        f"A dash: the site's cases can't tell (intervals need {FEWEST} patients on each side). Being the "
        "lowest of several, the worst site looks worse than it is."
    )
    return Table(f"{_headed(comparison)} at each site (95% CI)", header, tuple(rows), note)


def _table_of_differences(comparison: Comparison, name: Callable[[str], str]) -> Table:
    rows = [
        (
            "all" if d.cases_of == POOLED else d.cases_of,
            f"{name(d.a)} {MINUS} {name(d.b)}",
            spell_difference(d),
            spell_p(d.p),
            spell_p(d.p_adjusted),
            *((_no_worse(d.non_inferior),) if comparison.margin else ()),
        )
        for d in comparison.differences
        if d.of == comparison.main
    ]
    margin = (f"No worse by {comparison.margin:g}",) if comparison.margin else ()
    header = ("Test cases of", "Models", "Difference (95% CI)", "p", "p adjusted", *margin)
    note = (
        "Paired by case, clustered by patient; p adjusted by Holm's method over the models compared on the "
        "same cases; intervals are not adjusted."
    )
    return Table(f"Differences in {_auroc_of(comparison)}", header, tuple(rows), note)


def _no_worse(p: float | None) -> str:
    """One-sided at 2.5%."""
    return "–" if p is None else f"{'shown' if p < 0.025 else 'not shown'} (p {spell_p(p)})"


def number(value: float | None, digits: int = 3) -> str:
    """A value as text; a dash where it isn't known. What only rounds to 1 is printed as above 0.999."""
    if value is None:
        return "–"
    text, almost = f"{value:z.{digits}f}".replace("-", MINUS), 1 - 10**-digits
    return f">{almost:.{digits}f}" if almost < value < 1 and text == f"{1:.{digits}f}" else text


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; a true minus, and never minus zero."""
    return f"{value:+z.{digits}f}".replace("-", MINUS)


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


def spell_difference(difference: Difference | OutlineDifference) -> str:
    """Difference and interval with signs, as in +0.041 (+0.012 to +0.070)."""
    ci95 = difference.ci95
    return f"{signed(difference.difference)} ({signed_range(ci95) if ci95 else '–'})"


def spell_p(p: float | None) -> str:
    """p as journals print it."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
