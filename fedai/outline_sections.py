"""The sections of a segmentation's report on the run itself: cohorts, training, what wasn't measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedai.figures import cohort_flow, html_table, note_of
from fedai.outline_results import OutlineComparison
from fedai.results import CENTRALISED, FEWEST
from fedai.run_sections import gaps_of, gaps_of_run, table_of_splits, training_section, untold_words
from fedai.study import OUTLINED
from fedai.tables import Table, number
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
EMPTY_MASKS = (
    "Dice and NSD of a case are 0 where one alone outlines the structure, and undefined, only counted, where "
    "neither does; HD95 is defined where both do; the area error, where at least one does."
)
MEASURED_ON = "on the study's pixel grid, in mm of the image's own pixel spacing"
INTERVALS = (
    "Means over cases, with variances clustered by patient (ratio estimator): the intervals of Dice and NSD "
    "on the logit scale, those of HD95 and area error on t. Differences are paired by case and tested on t; "
    "those in Dice also by Wilcoxon's signed-rank test over patients, between models of one run. There is no "
    f"interval with fewer than {FEWEST} patients."
)
METHODS = (
    "Sites measured each model's outlines against their own masks, on the study's pixel grid and in mm, and "
    f"sent sums, counts and bins; no patient's row left a site. {EMPTY_MASKS} NSD and HD95 are between the "
    "outermost pixels of the two outlines.",
    INTERVALS,
    "Over sites: random effects of the mean Dice's logit (Paule and Mandel), Hartung and Knapp's interval. "
    "Percentiles of cases: from the sites' counts by bin, added up.",
)
READERS = "How far two readers' outlines of the same image differ."


def cohorts_of_outlines(record: Json) -> str:
    """Which images were used, by site."""
    cohorts = record.get("cohorts", {})
    panels = "".join(cohort_flow(site, cohort) for site, cohort in cohorts.items())
    note = (
        "Counts are of images; pat. = patients. Labelled: with a mask that speaks of every structure. All "
        f"images of a patient are in the same split.{untold_words(cohorts)}"
    )
    splits = html_table(table_of_splits(cohorts, OUTLINED))
    return (
        f"<section><h2>Which images were used</h2><div class='panels'>{panels}</div>"
        f"{note_of(note)}{splits}</section>"
    )


def training_of_outlines(record: Json, comparison: OutlineComparison) -> str:
    """The rounds, with Dice on validation images by structure where there are several."""
    shown = html_table(_validation(record, comparison.structures)) if len(comparison.structures) > 1 else ""
    return training_section(record, comparison, "Dice", shown)


def _validation(record: Json, structures: Sequence[str]) -> Table:
    rows = [
        (str(closed["number"]), site, *(number(value) for value in validation.get("dice", [])))
        for closed in record.get("rounds", [])
        for site, validation in closed.get("validation", {}).items()
    ]
    full = tuple(row for row in rows if len(row) == 2 + len(structures))
    return Table("Dice on validation images at the start of each round", ("Round", "Site", *structures), full)


def gaps_of_outlines(record: Json, comparison: OutlineComparison) -> list[str]:
    """What this run didn't measure, and what no run does."""
    has_central = comparison.model(comparison.sibling(CENTRALISED)) is not None
    return [
        *_intervals_missing(comparison),
        *gaps_of_run(record, comparison.sites, has_central),
        READERS,
        *gaps_of(record, has_subgroups=False),
    ]


def _intervals_missing(comparison: OutlineComparison) -> list[str]:
    """Of the mean Dice at each site."""
    model = comparison.model(comparison.against) or comparison.models[0]
    gaps = []
    for site, results in model.sites.items():
        for result in results:
            dice, patients = result.means["dice"], result.patients["dice"]
            if dice.value is None and not result.withheld("dice"):
                gaps.append(f"Dice of {result.name} at {site}: nobody outlines it in a test image.")
            elif dice.value is not None and dice.ci95 is None:
                lack = f"{patients} patients, {FEWEST} are needed" if patients < FEWEST else "all are alike"
                gaps.append(f"An interval of the mean Dice of {result.name} at {site}: {lack}.")
    return gaps
