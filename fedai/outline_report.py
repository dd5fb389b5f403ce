"""The report of a segmentation's run: one HTML file that needs nothing else.

What a classification's report has beside this (ROC and decision curves, calibration, calls, the matrix,
subgroups) is of scores, and isn't here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fedai.checklists import checklists
from fedai.figures import display_name, escape, html_table, note_of
from fedai.outline_figures import distributions, results_figures
from fedai.outline_results import OutlineComparison, OutlineDifference, StructureResult
from fedai.outline_sections import LEFT, METHODS, cohorts_of_outlines, gaps_of_outlines, training_of_outlines
from fedai.outline_tables import tables
from fedai.report import (
    REFERENCES,
    checklists_section,
    header_section,
    page,
    spell_out,
    tile_of,
    what_was_done,
)
from fedai.results import CENTRALISED, FEDERATED, LOCAL, MEAN_OF_LOCAL, POOLED
from fedai.run_sections import BETWEEN_RUNS, gaps_section, methods_section, privacy_section
from fedai.tables import number, spell_range

Json = Mapping[str, Any]
MOST_STRUCTURES = 3  # that the summary spells out


def render_outlines(comparison: OutlineComparison, record: Json, *others: Json) -> str:
    """The whole report as one HTML text. `record` is the run's plain JSON from the server's database, of
    several runs that of the first; `others` are the records of the others."""
    shown = "".join(html_table(table) for table in tables(comparison, display_name, brief=True))
    sections = [
        header_section(record, others),
        _summary(record, comparison),
        cohorts_of_outlines(record),
        f"<section><h2>How well each model outlines</h2>{results_figures(comparison)}</section>",
        f"<section><h2>How test images are spread</h2>{distributions(comparison)}</section>",
        f"<section><h2>The numbers</h2>{shown}</section>",
        *(training_of_outlines(one, comparison) for one in (record, *others)),
        privacy_section(record, LEFT),
        gaps_section(gaps_of_outlines(record, comparison)),
        methods_section(record, (*METHODS, BETWEEN_RUNS) if others else METHODS),
        checklists_section(checklists(record, comparison)),
    ]
    return page(record, sections)


def _summary(record: Json, comparison: OutlineComparison) -> str:
    splits = [record.get("cohorts", {}).get(site, {}).get("splits", {}) for site in comparison.sites]
    patients = sum(int(split.get("test", {}).get("patients", 0)) for split in splits)
    cases = sum(comparison.models[0].pooled[0].found.values())
    done = what_was_done(record, comparison.sites, cases, patients)
    text = " ".join([done, *_what_came_out(comparison)])
    return f"<section><h2>Summary</h2><p>{escape(text)}</p>{_tiles(comparison)}</section>"


def _what_came_out(comparison: OutlineComparison) -> Iterator[str]:
    model = comparison.model(comparison.against)
    if model is None:
        return
    name = _subject(model.name)
    for s, result in enumerate(model.pooled[:MOST_STRUCTURES]):
        yield f"{name} outlined {_told(result)}."
        for other, spelled in REFERENCES.items():
            found = _difference(comparison, other, result.name)
            if found:
                yield spell_out(found, spelled)
        lowest = model.worst(s)
        if lowest and len(model.sites) > 1:
            yield f"By site, it was lowest at {lowest[0]}: {number(lowest[1].value)}."
    if len(model.pooled) > MOST_STRUCTURES:
        yield f"Its other {len(model.pooled) - MOST_STRUCTURES} structures are below."


def _told(result: StructureResult) -> str:
    dice = result.means["dice"]
    interval = f" (95% CI {spell_range(dice.ci95)})" if dice.ci95 else ""
    return f"{result.name} with a mean Dice of {number(dice.value)}{interval}"


def _difference(comparison: OutlineComparison, other: str, structure: str) -> OutlineDifference | None:
    """In Dice on all test cases, from a model of the same run."""
    wanted = other if other == MEAN_OF_LOCAL else comparison.sibling(other)
    asked = (wanted, POOLED, structure, "dice")
    return next((d for d in comparison.differences if (d.b, d.cases_of, d.of, d.measure) == asked), None)


def _subject(model: str) -> str:
    return "The federated model" if model == FEDERATED else f"The model “{display_name(model)}”"


def _tiles(comparison: OutlineComparison) -> str:
    """Mean Dice: of one structure beside that of the other models, of several the main model's alone."""
    model = comparison.model(comparison.against)
    if model is None:
        return ""
    if len(model.pooled) > 1:
        name = _subject(model.name)
        note = f"of {name[0].lower()}{name[1:]}, on the test images of all sites"
        made = [_tile(result.name, result, "main") for result in model.pooled[:MOST_STRUCTURES]]
    else:
        note = "on the test images of all sites"
        made = [_tile(display_name(model.name), model.pooled[0], "main"), *_others(comparison)]
    return f'<div class="tiles">{"".join(made)}</div>{note_of(f"Mean Dice {note}.")}'


def _others(comparison: OutlineComparison) -> Iterator[str]:
    """The models of each site alone, on average, and that of all data in one place."""
    start = comparison.sibling(LOCAL)
    alone = [m.pooled[0].means["dice"].value for m in comparison.models if m.name.startswith(start)]
    known = [value for value in alone if value is not None]
    if known:
        scope = f"mean of {len(known)}, {number(min(known))} to {number(max(known))}"
        yield tile_of("Each site alone", number(math.fsum(known) / len(known)), scope)
    central = comparison.model(comparison.sibling(CENTRALISED))
    if central:
        yield _tile("All data in one place", central.pooled[0])


def _tile(name: str, result: StructureResult, kind: str = "") -> str:
    dice = result.means["dice"]
    scope = f"95% CI {spell_range(dice.ci95)}" if dice.ci95 else "no interval"
    return tile_of(name, number(dice.value), scope, kind)
