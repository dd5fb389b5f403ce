"""Figures of a segmentation: mean Dice of models and over sites, differences, and how cases are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedai import charts
from fedai.figures import (
    MOST_MODELS_PER_SITE,
    PAIRED,
    counted,
    difference_bar,
    display_name,
    escape,
    listed,
    note_of,
    styles,
    wide,
)
from fedai.outline_results import (
    QUANTILES,
    OutlineComparison,
    OutlineDifference,
    OutlineResults,
    StructureResult,
)
from fedai.outline_tables import DIGITS, HEADS, NAMES, spell_mean
from fedai.outlines import MEASURES
from fedai.results import FEWEST, LOCAL, POOLED, Measure, back
from fedai.tables import MINUS, number, spell, spell_range

MOST_STRUCTURES = 4  # that are drawn at each site; of more, all sites together
LEAST = {"dice": 0.0, "nsd": 0.0, "hd95_mm": 0.0, "area_error_mm2": -1000.0}
MOST = {"dice": 1.0, "nsd": 1.0, "hd95_mm": 100.0, "area_error_mm2": 1000.0}


def results_figures(comparison: OutlineComparison) -> str:
    """By structure: every model, all sites together and at each; the main one over sites; differences."""
    several = len(comparison.structures) > 1
    made = []
    for s, name in enumerate(comparison.structures):
        head = f"<h3>{escape(name)}</h3>" if several else ""
        made.append(head + forest(comparison, s) + over_sites(comparison, s) + differences(comparison, s))
    return "".join(made) + "".join(note_of(text) for text in (*_notes(comparison), *withheld(comparison)))


def _notes(comparison: OutlineComparison) -> list[str]:
    notes = [
        "Dot: mean Dice over test images on which it is defined. Line: its 95% interval, with patients as "
        f"the unit; none with fewer than {FEWEST} patients. Models marked “alone” were trained at one site "
        "only and are judged at every site.",
    ]
    if any(effects for model in comparison.models for effects, _ in model.across):
        notes.append(
            "All images: as one population of patients. Random effects: Paule and Mandel's variance between "
            "sites, Hartung and Knapp's interval. A further hospital: where the mean Dice of 95% of "
            "hospitals like these is expected."
        )
    if len(comparison.structures) > MOST_STRUCTURES:
        notes.append("Models at each site are in the table.")
    return [*notes, PAIRED] if comparison.differences else notes


def forest(comparison: OutlineComparison, s: int) -> str:
    """Every model's mean Dice of a structure with its interval: all sites together, then at each site."""
    sites = comparison.sites if len(comparison.structures) <= MOST_STRUCTURES else ()
    groups = [(POOLED, comparison.models), *((site, _shown_at(comparison, site)) for site in sites)]
    axis = _axis([_result(m, where, s).means["dice"] for where, models in groups for m in models])
    return "".join(_group(comparison, s, where, models, axis) for where, models in groups)


def _axis(measures: Sequence[Measure]) -> charts.Axis:
    ends = [v for m in measures for v in (*(m.ci95 or ()), m.value) if v is not None]
    return charts.axis_for("Dice", [*ends, 1.0], 0, 1)


def _shown_at(comparison: OutlineComparison, site: str) -> tuple[OutlineResults, ...]:
    """All models, or where they are many, those that matter at a site: the shared ones and its own."""
    if len(comparison.models) <= MOST_MODELS_PER_SITE:
        return comparison.models
    return tuple(m for m in comparison.models if m.trained_at in ("", site))


def _result(model: OutlineResults, where: str, s: int) -> StructureResult:
    return (model.pooled if where == POOLED else model.sites[where])[s]


def _group(
    comparison: OutlineComparison, s: int, where: str, models: Sequence[OutlineResults], axis: charts.Axis
) -> str:
    drawn, bars = styles(comparison), []
    for model in models:
        found, main = _result(model, where, s), model.name == comparison.against
        name, text = display_name(model.name), spell_mean(found, "dice")
        dice = found.means["dice"]
        bars.append(charts.Bar(name, drawn[model.name], dice.value, dice.ci95, text, main))
    place = "all sites" if where == POOLED else where
    images = counted(sum(_result(models[0], where, s).found.values()), "test image")
    heading = f"Mean Dice of {comparison.structures[s]}, {place}: {images}"
    return wide(charts.intervals(bars, axis, heading=heading))


def over_sites(comparison: OutlineComparison, s: int) -> str:
    """Forest plot of the main model: each site, all images together, and sites as a sample of hospitals."""
    model = comparison.model(comparison.against)
    if model is None or len(model.sites) < 2:
        return ""
    bars = [
        _told(site, charts.Style(charts.DARK), found[s], is_main=False) for site, found in model.sites.items()
    ]
    bars.append(_told("All images", styles(comparison)[model.name], model.pooled[s], is_main=True))
    known = [Measure(bar.value, bar.ci95) for bar in bars]
    effects = model.across[s][0]
    if effects:
        estimate, ci95, predicted = back(effects)
        known.append(Measure(estimate, ci95))
        style = styles(comparison)[model.name]
        bars.append(charts.Bar("Random effects", style, estimate, ci95, spell(known[-1]), True))
        if predicted:  # may be all there is, so it doesn't decide how far the axis goes
            faint = charts.Style(charts.AXIS, "3 3")
            bars.append(charts.Bar("A further hospital", faint, None, predicted, spell_range(predicted)))
    i2 = f", I² {effects.i2:.0%}" if effects else ""
    heading = f"Mean Dice of {comparison.structures[s]} by {display_name(model.name)}, over sites{i2}"
    return wide(charts.intervals(bars, _axis(known), heading=heading))


def _told(name: str, style: charts.Style, found: StructureResult, *, is_main: bool) -> charts.Bar:
    dice = found.means["dice"]
    return charts.Bar(name, style, dice.value, dice.ci95, spell_mean(found, "dice"), is_main)


def differences(comparison: OutlineComparison, s: int) -> str:
    """In Dice of a structure: the main model against the others on all test cases, and against each site's
    own at that site.
    """
    found = [d for d in comparison.differences if (d.of, d.measure) == (comparison.structures[s], "dice")]
    own = [d for d in found if d.b == comparison.sibling(f"{LOCAL}{d.cases_of}")]
    first, structure = display_name(comparison.against), comparison.structures[s]
    groups = [
        (f"Dice of {structure}: {first} minus …, all sites", [d for d in found if d.cases_of == POOLED]),
        (f"Dice of {structure}: {first} minus each site's own model, at that site", own),
    ]
    axis = _axis_of_differences([d for _, ds in groups for d in ds])
    return "".join(
        wide(
            charts.intervals(
                [difference_bar(comparison, d) for d in ds], axis, heading=heading, reference=0.0
            )
        )
        for heading, ds in groups
        if ds
    )


def _axis_of_differences(found: Sequence[OutlineDifference]) -> charts.Axis:
    ends = [v for d in found for v in (*(d.ci95 or ()), d.difference)]
    return charts.axis_for("difference", [*ends, 0.0], -1, 1)


# How cases are spread


def distributions(comparison: OutlineComparison) -> str:
    """By structure and measure: of every model where the test cases of all sites lie."""
    several, made = len(comparison.structures) > 1, []
    for s, name in enumerate(comparison.structures):
        pictures = "".join(_spread(comparison, s, measure) for measure in MEASURES)
        made.append((f"<h3>{escape(name)}</h3>" if several else "") + pictures)
    return "".join(made) + note_of(SPREAD)


SPREAD = (
    "Of test images, all sites together, from counts of cases by bin. Box: the middle half of the cases; "
    "thick stroke: their median; line: from the 5th to the 95th percentile; each to half a bin (0.0025 of "
    "Dice and NSD, 0.25 mm, 5 mm²); an arrow: beyond 100 mm or ±1,000 mm². Images, not patients, are the "
    "unit here. "
    f"At the right the median and the middle half. Nothing is drawn of fewer than {FEWEST} cases."
)


def _spread(comparison: OutlineComparison, s: int, measure: str) -> str:
    drawn = styles(comparison)
    rows, missing = list[charts.Strip](), list[str]()
    for model in comparison.models:
        found, name = model.pooled[s], display_name(model.name)
        shares = [share for share in found.quantiles[measure] if share is not None]
        if found.cases[measure] < FEWEST or len(shares) < len(QUANTILES):
            missing.append(f"{name}, {_why(found, measure)}")
            continue
        low, left, median, right, high = shares
        text = f"{_number(median, measure)} ({_number(left, measure)} to {_number(right, measure)})"
        place = drawn[model.name], (low, high), (left, right), median
        rows.append(charts.Strip(name, *place, text, model.name == comparison.against))
    lacks = note_of(f"Not drawn for {NAMES[measure]}: {'; '.join(missing)}.") if missing else ""
    if not rows:
        return lacks
    heading = f"{comparison.structures[s]}: {HEADS[measure]}, by model"
    zero = 0.0 if measure == "area_error_mm2" else None
    return wide(charts.strips(rows, _axis_of(rows, measure), heading=heading, reference=zero)) + lacks


def _why(found: StructureResult, measure: str) -> str:
    told = counted(found.cases[measure], "case")
    return f"{told} told of, {found.withheld(measure)} withheld" if found.withheld(measure) else told


def _number(value: float, measure: str) -> str:
    """To the digits that half a bin leaves."""
    if math.isinf(value):
        return f"beyond {MINUS if value < 0 else ''}{MOST[measure]:,g}"
    digits = {"hd95_mm": 2, "area_error_mm2": 0}.get(measure, DIGITS[measure])
    return number(value, digits)


def _axis_of(rows: Sequence[charts.Strip], measure: str) -> charts.Axis:
    limits = {-math.inf: LEAST[measure], math.inf: MOST[measure]}
    ends = [limits.get(end, end) for row in rows for end in row.ends]
    best = 1.0 if measure in ("dice", "nsd") else 0.0
    return charts.axis_for(HEADS[measure], [*ends, best], LEAST[measure], MOST[measure])


def withheld(comparison: OutlineComparison, model: str = "") -> list[str]:
    """What sites don't tell although there is something, in sentences; of all models, or of one."""
    models = [one for one in comparison.models if model in ("", one.name)]
    return [
        f"Withheld at {site}: {NAMES[measure]} of {structure} ({_all_or(names, models)}). {WITHHELD}"
        for site in comparison.sites
        for s, structure in enumerate(comparison.structures)
        for measure in MEASURES
        if (names := [display_name(m.name) for m in models if m.sites[site][s].withheld(measure)])
    ]


def _all_or(names: Sequence[str], models: Sequence[OutlineResults]) -> str:
    return "all models" if len(names) == len(models) > 1 else listed(names)


WITHHELD = (
    "It is defined for fewer patients than the site tells of, so these cases are in no mean, median or "
    "difference, nor in those of all sites."
)
