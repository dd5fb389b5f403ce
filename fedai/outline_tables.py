"""A segmentation's comparison as tables of plain text, and as one long table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator

from fedai.long_table import HEADER
from fedai.outline_results import UNRANKED, OutlineComparison, OutlineDifference, StructureResult
from fedai.outlines import MEASURES
from fedai.results import FEWEST, HARTUNG_KNAPP, POOLED, Measure, back
from fedai.tables import (
    MINUS,
    TRAINED_THERE,
    UNIT,
    Table,
    number,
    signed,
    spell,
    spell_p,
    spell_range,
)

HEADS = {
    "dice": "Dice",
    "nsd": "NSD",
    "hd95_mm": "HD95, mm",
    "area_error_mm2": "Area error, mm²",
}
NAMES = {measure: head.partition(",")[0] for measure, head in HEADS.items()}
DIGITS = {"dice": 3, "nsd": 3, "hd95_mm": 2, "area_error_mm2": 1}
MEASURED = (
    "Means over cases, by patient. Dice and NSD (share of edges within the tolerance): where a structure is "
    "outlined by one alone 0, by neither undefined. HD95: 95th percentile of the edges' distances, where "
    "both outline it. Area error: the model's area less the reference's. All on the study's pixel grid."
)


def tables(
    comparison: OutlineComparison, name: Callable[[str], str] = str, *, brief: bool = False
) -> list[Table]:
    """Models on all cases, by site, sites as a sample (if there are enough), who outlines what, and
    differences. `name` spells the name of a model. `brief`: at each site differences in Dice alone.
    """
    ranks, sample = table_of_ranks(comparison, name), table_across(comparison, name)
    return [
        table_of_models(comparison, name),
        table_of_found(comparison, name),
        table_of_sites(comparison, name),
        *([sample] if sample.rows else []),
        table_of_differences(comparison, name, brief=brief),
        *([ranks] if ranks.rows else []),
    ]


def table_of_models(comparison: OutlineComparison, name: Callable[[str], str]) -> Table:
    """All sites together."""
    rows = [
        (
            name(model.name),
            result.name,
            str(result.cases["dice"]),
            str(result.patients["dice"]),
            *_spelled(result),
        )
        for model in comparison.models
        for result in model.pooled
    ]
    header = ("Model", "Structure", "Cases", "Patients", *_heads())
    note = f"NSD at {comparison.tolerance_mm:g} mm. {MEASURED} {UNIT}"
    return Table("Outlines, all sites together", header, tuple(rows), note)


def table_of_sites(comparison: OutlineComparison, name: Callable[[str], str]) -> Table:
    """Each site's own test cases."""
    rows = [
        (site, name(model.name), result.name, str(result.patients["dice"]), *_spelled(result))
        for site in comparison.sites
        for model in comparison.models
        for result in model.sites[site]
    ]
    header = ("Test cases of", "Model", "Structure", "Patients", *_heads())
    note = (
        f"A dash: the site's cases can't tell (intervals need {FEWEST} patients). Withheld: the measure is "
        "defined for fewer patients than the site tells of."
    )
    return Table("Outlines at each site", header, tuple(rows), note)


def table_across(comparison: OutlineComparison, name: Callable[[str], str]) -> Table:
    """Sites taken as a sample of hospitals, and the worst one."""
    rows = []
    for model in comparison.models:
        for s, (effects, left_out) in enumerate(model.across):
            if effects:
                estimate, ci95, predicted = back(effects)
                lowest, told = model.worst(s), spell_range(predicted) if predicted else "–"
                numbers = spell(Measure(estimate, ci95)), told, f"{effects.i2:.0%}"
                worst = f"{lowest[0]}: {number(lowest[1].value)}" if lowest else "–"
                place = name(model.name), comparison.structures[s], str(effects.sites)
                rows.append((*place, *numbers, ", ".join(left_out) or "none", worst))
    header = ("Model", "Structure", "Sites", "Dice (95% CI)", "A further hospital (95%)", "I²", "Left out")
    title = f"Mean Dice, sites as a sample of hospitals: {HARTUNG_KNAPP}"
    return Table(title, (*header, "Worst site"), tuple(rows), TRAINED_THERE)


def table_of_found(comparison: OutlineComparison, name: Callable[[str], str]) -> Table:
    """Who outlines a structure, and medians."""
    rows = []
    for model in comparison.models:
        for result in model.pooled:
            medians = [number(result.median(m), DIGITS[m]) for m in MEASURES]
            counts = [str(count) for count in result.found.values()]
            rows.append((name(model.name), result.name, *counts, *medians))
    header = ("Model", "Structure", "Neither", "Model alone", "Reference alone", "Both")
    note = (
        "Cases by who outlines the structure. Medians over the cases where a measure is defined, to half a "
        "bin: 0.0025 of Dice and NSD, 0.25 mm, 5 mm²; a dash: beyond 100 mm or ±1,000 mm², or no case."
    )
    heads = tuple(f"{head}, median" for head in HEADS.values())
    return Table("Who outlines what, all sites together", (*header, *heads), tuple(rows), note)


def table_of_differences(
    comparison: OutlineComparison, name: Callable[[str], str], *, brief: bool = False
) -> Table:
    """Paired differences on all cases and at each site."""
    rows = [
        (
            "all" if d.cases_of == POOLED else d.cases_of,
            f"{name(d.a)} {MINUS} {name(d.b)}",
            d.of,
            HEADS[d.measure],
            _spell_difference(d),
            spell_p(d.p),
            spell_p(d.p_adjusted),
        )
        for d in comparison.differences
        if not brief or d.cases_of == POOLED or d.measure == "dice"
    ]
    header = ("Test cases of", "Models", "Structure", "Measure", "Difference (95% CI)", "p", "p adjusted")
    note = (
        "Paired by case, clustered by patient; p adjusted by Holm's method over the models compared on the "
        "same cases, by structure and measure; intervals are not adjusted."
    )
    if brief:
        note += " The other measures' differences at each site are in --csv and --json."
    return Table("Differences between models", header, tuple(rows), note)


def table_of_ranks(comparison: OutlineComparison, name: Callable[[str], str]) -> Table:
    """Wilcoxon's tests, between models of one run; of those between runs that there is none."""
    asked = [d for d in comparison.differences if d.measure == "dice"]
    rows = [
        ("all" if d.cases_of == POOLED else d.cases_of, f"{name(d.a)} {MINUS} {name(d.b)}", d.of, *_ranks(d))
        for d in asked
        if d.ranks or (d.is_between_runs and d.cases_of == POOLED)
    ]
    header = ("Test cases of", "Models", "Structure", "Patients who differ", "Who don't", "Rank-biserial")
    note = (
        "Of each patient's mean difference in Dice, binned; two-sided, patients who don't differ left out, "
        "on the normal distribution, corrected for ties, not for continuity; p adjusted by Holm's method "
        f"over the models compared on the same cases. A dash: fewer than {FEWEST} patients differ."
    )
    if any(d.is_between_runs for d in asked):
        note += f" Between runs all are dashes: {UNRANKED}."
    title = "Differences in Dice by patient: Wilcoxon's signed-rank test"
    return Table(title, (*header, "p", "p adjusted"), tuple(rows), note)


def _ranks(d: OutlineDifference) -> tuple[str, str, str, str, str]:
    if d.ranks is None:
        return ("–",) * 5
    effect = signed(d.ranks.effect) if d.ranks.effect is not None else "–"
    return str(d.ranks.patients), str(d.ranks.alike), effect, spell_p(d.ranks.p), spell_p(d.ranks.p_adjusted)


def _heads() -> tuple[str, ...]:
    return tuple(f"{head} (95% CI)" for head in HEADS.values())


def _spelled(result: StructureResult) -> tuple[str, ...]:
    return tuple(spell_mean(result, name) for name in MEASURES)


def spell_mean(result: StructureResult, name: str) -> str:
    """Mean and interval of a measure; in words where nothing of it is told."""
    measure, digits = result.means[name], DIGITS[name]
    if measure.value is None:
        return "withheld" if result.withheld(name) else "–"
    ends = [number(end, digits) for end in measure.ci95 or ()]
    return f"{number(measure.value, digits)} ({' to '.join(ends) or '–'})"


def _spell_difference(d: OutlineDifference) -> str:
    digits = DIGITS[d.measure]
    ends = " to ".join(signed(end, digits) for end in d.ci95 or ())
    return f"{signed(d.difference, digits)} ({ends or '–'})"


def as_csv(comparison: OutlineComparison) -> str:
    """As `long_table.as_csv`, with structures in the place of classes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(comparison))
    return text.getvalue()


def _rows(comparison: OutlineComparison) -> Iterator[tuple[object, ...]]:
    for model in comparison.models:
        for where, results in ((POOLED, model.pooled), *model.sites.items()):
            for result in results:
                for name in MEASURES:
                    place = model.name, "", where, result.name
                    yield (*place, name, *_numbers(result.means[name]), "", "")
                    yield (*place, f"{name} median", *_numbers(Measure(result.median(name))), "", "")
    for d in comparison.differences:
        numbers = _numbers(Measure(d.difference, d.ci95))
        yield (
            d.a,
            d.b,
            d.cases_of,
            d.of,
            f"{d.measure} difference",
            *numbers,
            _number(d.p),
            _number(d.p_adjusted),
        )
        if d.ranks:
            p, adjusted = _number(d.ranks.p), _number(d.ranks.p_adjusted)
            effect = _numbers(Measure(d.ranks.effect))
            yield (d.a, d.b, d.cases_of, d.of, "dice rank-biserial", *effect, p, adjusted)


def _numbers(measure: Measure) -> tuple[str, str, str]:
    low, high = measure.ci95 or (None, None)
    return _number(measure.value), _number(low), _number(high)


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
