"""The report of a segmentation's run: one HTML file that needs nothing else.

What a classification's report has beside this (ROC and decision curves, calibration, calls, the matrix,
checklists) is of scores, and isn't here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedai.figures import cohort_flow, counted, display_name, escape, html_table, listed, note_of
from fedai.outline_results import OutlineComparison, StructureResult
from fedai.outline_tables import tables
from fedai.report import header_section, page
from fedai.run_sections import (
    BETWEEN_RUNS,
    GAPS,
    USE,
    privacy_section,
    table_of_rounds,
    table_of_splits,
    versions_of,
)
from fedai.study import OUTLINED
from fedai.tables import Table, number, spell_range
from fedai.wire import MINIMUM_CELL

Json = Mapping[str, Any]
LEFT = (
    "No image, no mask, no identifier and no patient's row: changes of the network's weights, and of the "
    "test images counts, sums over patients, counts of cases by bin of Dice, NSD, HD95 and area error, and "
    "counts of patients by bin of the difference in Dice between two models.",
    f"Nothing of a split with fewer than {MINIMUM_CELL} patients (a site may ask for more), nor of a "
    "structure that fewer have, or haven't; no sum of a measure that is defined for fewer; none as the "
    "difference of two answers.",
    "Counts within larger groups may be of one, and the bins of a small test set show single values, not "
    "whose.",
    "Updates were not encrypted against the coordinator, and no noise was added: what a model remembers of "
    "its training images was not bounded.",
)
METHODS = (
    "Sites measured each model's outlines against their own masks, on the study's pixel grid and in mm, and "
    "sent sums, counts and bins; no patient's row left a site. Dice and NSD of a case are 0 where one alone "
    "outlines the structure, and undefined, only counted, where neither does; HD95 is defined where both do. "
    "NSD and HD95 are between the outermost pixels of the two outlines.",
    "Means over cases, with variances clustered by patient (ratio estimator): the intervals of Dice and NSD "
    "on the logit scale, those of HD95 and area error on t. Differences are paired by case and tested on t; "
    "those in Dice also by Wilcoxon's signed-rank test over patients. There is no interval with fewer than "
    "10 patients.",
)


def render_outlines(comparison: OutlineComparison, record: Json, *others: Json) -> str:
    """The whole report as one HTML text. `record` is the run's plain JSON from the server's database, of
    several runs that of the first; `others` are the records of the others."""
    shown = "".join(html_table(table) for table in tables(comparison, display_name))
    sections = [
        header_section(record, others),
        _summary(record, comparison),
        _cohorts(record),
        f"<section><h2>How well each model outlines</h2>{shown}</section>",
        *(_training(one, f" of {one.get('run', '')}" if others else "") for one in (record, *others)),
        privacy_section(record, LEFT),
        _not_measured(record, comparison),
        _methods(record, (*METHODS, BETWEEN_RUNS) if others else METHODS),
    ]
    return page(record, sections)


def _summary(record: Json, comparison: OutlineComparison) -> str:
    model = comparison.model(comparison.against)
    told = [_told(result) for result in model.pooled] if model else []
    trained = [c.get("splits", {}).get("train", {}) for c in record.get("cohorts", {}).values()]
    cases, patients = (sum(int(split.get(key, 0)) for split in trained) for key in ("cases", "patients"))
    text = (
        f"{listed(list(comparison.sites))} trained one model together in "
        f"{counted(len(record.get('rounds', [])), 'round')}, on {counted(cases, 'image')} of "
        f"{counted(patients, 'patient')}, without an image leaving its site. On the test images of all sites "
        f"{display_name(comparison.against)} outlined {'; '.join(told)}."
    )
    return f"<section><h2>Summary</h2><p>{escape(text)}</p></section>"


def _told(result: StructureResult) -> str:
    dice, patients = result.means["dice"], result.patients["dice"]
    interval = f" (95% CI {spell_range(dice.ci95)})" if dice.ci95 else ""
    return (
        f"{result.name} with a mean Dice of {number(dice.value)}{interval} in {counted(patients, 'patient')}"
    )


def _cohorts(record: Json) -> str:
    cohorts = record.get("cohorts", {})
    panels = "".join(cohort_flow(site, cohort) for site, cohort in cohorts.items())
    note = "Counts are of images; pat. = patients. Labelled: with a mask that speaks of every structure."
    splits = html_table(table_of_splits(cohorts, OUTLINED))
    return (
        f"<section><h2>Which images were used</h2><div class='panels'>{panels}</div>"
        f"{note_of(note)}{splits}</section>"
    )


def _training(record: Json, of: str) -> str:
    rounds = record.get("rounds", [])
    rows = []
    for closed in rounds:
        for site, validation in closed.get("validation", {}).items():
            dice = ", ".join(number(value) for value in validation.get("dice", []))
            loss = number(closed.get("train_loss", {}).get(site))
            rows.append((str(closed["number"]), site, loss, number(validation.get("loss")), dice))
    header = ("Round", "Site", "Training loss", "Validation loss", "Validation Dice by structure")
    shown = Table("At the start of each round", header, tuple(rows))
    return (
        f"<section><h2>Training{escape(of)}, round by round</h2>{html_table(table_of_rounds(rounds))}"
        f"{html_table(shown)}</section>"
    )


def _not_measured(record: Json, comparison: OutlineComparison) -> str:
    left_out = record.get("left_out", {})
    gaps = [f"The models at {site}: left out of the judgement ({why})." for site, why in left_out.items()]
    gaps += [f"Anything at {site}: it refused the study or failed ({code})."
             for site, code in record.get("refused", {}).items()]  # fmt: skip
    gaps += ["How far two readers' outlines of the same image differ.", *GAPS]
    items = "".join(f"<li>{escape(text)}</li>" for text in gaps)
    return f"<section><h2>What was not measured</h2><ul>{items}</ul></section>"


def _methods(record: Json, methods: Sequence[str]) -> str:
    study = record.get("study", {})
    facts = {
        "Study": f"{study.get('name', '')}, SHA-256 {record.get('study_hash', '')}",
        "Final model": str((record.get("rounds") or [{}])[-1].get("checkpoint") or "–"),
        **versions_of(record.get("versions", {})),
    }
    shown = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in methods)
    return f"<section><h2>Methods</h2>{text}<dl>{shown}</dl>{note_of(USE)}</section>"
