"""The sections of a report on the run itself: cohorts, training, what left, what wasn't measured, methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedai.charts import style_of
from fedai.figures import cohort_flow, escape, html_table, learning_curves, listed, note_of, styles
from fedai.performance_figures import calls_flow
from fedai.record import answered_in, final_of, final_words
from fedai.results import FEWEST, Comparison
from fedai.tables import Table
from fedai.wire import MINIMUM_CELL

if TYPE_CHECKING:
    from fedai.outline_results import OutlineComparison

Json = Mapping[str, Any]


def cohorts_section(record: Json, comparison: Comparison) -> str:
    cohorts = record.get("cohorts", {})
    panels = "".join(cohort_flow(site, cohort) for site, cohort in cohorts.items())
    classes = record.get("study", {}).get("task", {}).get("classes", [])
    note = "Counts are of images; pat. = patients. All images of a patient are in the same split."
    note += untold_words(cohorts)
    return (
        f"<section><h2>Which images were used</h2><div class='panels'>{panels}</div>"
        f"{note_of(note)}{html_table(table_of_splits(cohorts, classes))}{calls_flow(comparison)}</section>"
    )


def untold_words(cohorts: Mapping[str, Json]) -> str:
    """Which sites' splits tell of fewer images than were used; nothing where none does."""
    untold = [site for site, cohort in cohorts.items() if _untold(cohort)]
    if not untold:
        return ""
    return (
        f" At {listed(untold)} the splits tell of fewer images than were used: groups of fewer than "
        f"{MINIMUM_CELL} patients are not told of."
    )


def _untold(cohort: Json) -> int:
    """Images in use that no split tells of."""
    told = sum(int(split.get("cases", 0)) for split in cohort.get("splits", {}).values())
    return max(0, int(cohort.get("flow", {}).get("used", told)) - told)


def table_of_splits(cohorts: Json, classes: Sequence[str]) -> Table:
    rows = []
    for site, cohort in cohorts.items():
        for name, split in cohort.get("splits", {}).items():
            per_class = [f"{int(n):,}" for n in split.get("classes", [])] or ["–"] * len(classes)
            rows.append(
                (site, name, f"{split.get('patients', 0):,}", f"{split.get('cases', 0):,}", *per_class)
            )
    return Table(
        "Patients and images by split", ("Site", "Split", "Patients", "Images", *classes), tuple(rows)
    )


def training_section(
    record: Json, comparison: Comparison | OutlineComparison, measure: str = "AUROC", more: str = ""
) -> str:
    """`measure`: what validation images are judged by; `more`: what stands below the rounds."""
    rounds = record.get("rounds", [])
    name = f" of {escape(record.get('run', ''))}" if "/" in comparison.against else ""
    if not rounds:
        return f"<section><h2>Training{name}</h2><p>No round was closed.</p></section>"
    sites = list(record.get("cohorts", {})) or list(comparison.sites)
    drawn = styles(comparison)
    local = {s: comparison.sibling(f"local:{s}") for s in sites}
    names = {s: drawn.get(local[s], style_of(i)) for i, s in enumerate(sites)}
    return (
        f"<section><h2>Training{name}, round by round</h2>{learning_curves(rounds, names, measure)}"
        f"{html_table(table_of_rounds(rounds))}{more}</section>"
    )


def table_of_rounds(rounds: Sequence[Json]) -> Table:
    rows, is_drawn = [], any("not_selected" in r for r in rounds)
    for r in rounds:
        refused = [f"{site} ({code})" for site, code in r.get("refused", {}).items()]
        names = [
            answered_in(r),
            *([r.get("not_selected", [])] if is_drawn else []),
            r.get("late", []),
            refused,
        ]
        who = [", ".join(each) or "–" for each in names]
        cases = sum(int(n) for n in r.get("cases", {}).values())
        checkpoint = str(r.get("checkpoint") or "")[:12] or "–"
        rows.append((str(r["number"]), *who, f"{cases:,}", f"{float(r.get('seconds') or 0):.1f}", checkpoint))
    drawn = ("Not selected",) if is_drawn else ()
    header = ("Round", "Answered", *drawn, "Late", "Refused or failed", "Images", "Seconds", "Checkpoint")
    return Table("Who took part in each round", header, tuple(rows))


def privacy_section(record: Json, said: Sequence[str] | None = None) -> str:
    """`said`: what left in this kind of run; else `PRIVACY`."""
    heads = record.get("ledger_heads", {})
    odd = [site for site, found in record.get("ledger_contradictions", {}).items() if found]
    facts = [
        *(privacy_facts(record.get("study", {})) if said is None else said),
        f"Each site keeps a hash-chained ledger of what left; signed heads came from {listed(list(heads))}."
        if heads
        else "No signed head of a site's ledger is in the record.",
        *(f"The ledger of {site} contradicts an earlier head: ask there." for site in odd),
    ]
    items = "".join(f"<li>{escape(text)}</li>" for text in facts)
    return f"<section><h2>What left the sites</h2><ul>{items}</ul></section>"


PRIVACY = (
    "No image, no identifier and no patient's row: changes of the network's weights, and of the test images "
    "counts by bin of the score, counts at thresholds, and sums over patients.",
    f"Nothing of a split, or of a class in it, with fewer than {MINIMUM_CELL} patients (a site may ask for "
    "more), nor as the difference of two answers.",
    "Counts within larger groups may be of one, and the bins of a small test set show single scores, not "
    "whose.",
    "Updates were not encrypted against the coordinator, and no noise was added: what a model remembers of "
    "its training images was not bounded.",
)


def privacy_facts(study: Json) -> tuple[str, ...]:
    """What left the sites of a run of this study, in sentences."""
    asked = study.get("judgement", {}).get("subgroups")
    return (*PRIVACY[:1], OF_SUBGROUPS, *PRIVACY[1:]) if asked else PRIVACY


OF_SUBGROUPS = (
    "Of subgroups of the test patients, where a site's policy allows it: counts at the threshold, numbers of "
    "patients, and sums over patients that the AUROC within the site and its variance follow from."
)


def not_measured_section(record: Json, comparison: Comparison) -> str:
    gaps = [
        *_gaps_of_aurocs(comparison),
        *gaps_of_run(record, comparison.sites, comparison.central is not None),
        *gaps_of(record, bool(comparison.subgroups)),
    ]
    return gaps_section(gaps)


def gaps_section(gaps: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in gaps)
    return f"<section><h2>What was not measured</h2><ul>{items}</ul></section>"


def gaps_of(record: Json, has_subgroups: bool) -> list[str]:
    """What no run measures, or what this one didn't."""
    measured = {ELSEWHERE: record.get("without"), SUBGROUPS: has_subgroups}
    return [gap for gap in GAPS if not measured.get(gap)]


ELSEWHERE = "How the models do at a hospital that took no part in training."
SUBGROUPS = "Subgroups, such as sex, age or scanner maker."
GAPS = (
    ELSEWHERE,
    SUBGROUPS,
    "What the finished model could reveal of its training images.",
    "Readers with and without the model; any effect on patients.",
)


def _gaps_of_aurocs(comparison: Comparison) -> list[str]:
    gaps = []
    for site in comparison.sites:
        result = comparison.models[0].sites[site]
        if result.auroc.value is None:
            gaps.append(f"AUROC at {site}: its test images are all of one class, or none.")
        elif result.auroc.ci95 is None:
            lack = next((c.lack for c in result.classes if c.lack), "scores are all alike")
            gaps.append(f"An interval at {site}: {lack}.")
    return gaps


def gaps_of_run(record: Json, judged: Sequence[str], has_central: bool) -> list[str]:
    """Sites that are not among those `judged`, and what else this run's record lacks."""
    left_out = record.get("left_out", {})
    gaps = [
        f"The models at {s}: "
        + (f"left out of the judgement ({left_out[s]})." if s in left_out else "it gave no test scores.")
        for s in record.get("cohorts", {})
        if s not in judged
    ]
    gaps += [
        f"Anything at {s}: it refused the study or failed ({code})."
        for s, code in record.get("refused", {}).items()
    ]
    if not has_central:
        gaps.append("A model trained on all data in one place: the data may not be brought together.")
    if any(r.get("late") for r in record.get("rounds", [])):
        gaps.append("Updates of sites that were late in a round are not part of that round's model.")
    return gaps


def methods_section(record: Json, texts: Sequence[str]) -> str:
    """`texts`: the paragraphs, as `method_texts` gives them for a classification."""
    study = record.get("study", {})
    facts = {
        "Study": f"{study.get('name', '')}, SHA-256 {record.get('study_hash', '')}",
        "Final model": final_of(record)[1] or "–",
        "Chosen": final_words(record) or "–",
        **versions_of(record.get("versions", {})),
    }
    listed_facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in texts)
    return f"<section><h2>Methods</h2>{text}<dl>{listed_facts}</dl>{note_of(USE)}</section>"


USE = "For research. Nothing here shows that a model is fit for use in patients."


def versions_of(versions: Json) -> dict[str, str]:
    """Versions of the software: one line if all sites run the same, else one per site."""
    by_site = {where: v if isinstance(v, Mapping) else versions for where, v in versions.items()}
    lines = {where: ", ".join(f"{k} {v}" for k, v in found.items()) for where, found in by_site.items()}
    if len(set(lines.values())) <= 1:
        return {"Versions": next(iter(lines.values()), "–")}
    return {f"Versions at {where}": line for where, line in lines.items()}


BETWEEN_RUNS = (
    "Models of different runs are paired by sums over patients with secret weights, the same in each run on "
    "the same test images (multiplier bootstrap, 1,000 replicates): standard errors of their differences are "
    "within some 2% of those of one run that had judged all."
)
MORE_METHODS = (
    "AUPRC: average precision, its variance from each patient's influence. Calibration slope and intercept: "
    "logistic recalibration on the binned logits, with a variance clustered by patient. Net benefit: Vickers "
    "and Elkin (2006). Calls of two models: McNemar's test, clustered by patient (Obuchowski 1998). Over "
    "sites: random effects (Paule and Mandel), Hartung and Knapp's interval."
)


def method_texts(comparison: Comparison) -> list[str]:
    """How a classification's numbers came about."""
    bounds = [m.pooled.bound for m in comparison.models if m.pooled.bound is not None]
    bound = f", here at most {max(bounds):.4f}" if bounds else ""
    return [
        "Sites sent counts of scores by bin, counts at the threshold and sums over patients; no patient's "
        "row left a site. AUROC is computed from the counts; binning can move it by no more than the bound "
        f"in the table{bound}.",
        "Intervals and tests of AUROCs and their differences: DeLong's method, clustered by patient "
        "(Obuchowski 1997); the interval of an AUROC on the logit scale. Where an AUROC is exactly 1, the "
        "lower end is an exact conservative bound. Sensitivity and specificity: Wilson's interval for the "
        "number of independent images that the clustered ones are worth, at a score of "
        f"{comparison.threshold:g} or more, as fixed in the study. An AUROC has no interval with fewer than "
        f"{FEWEST} patients with, or without, the finding.",
        MORE_METHODS,
        *([BETWEEN_RUNS] if "/" in comparison.against else []),
    ]
