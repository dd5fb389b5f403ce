"""The report of a run: one HTML file that needs nothing else, for a radiologist to read or to print on A4.

Everything in it comes from the run's record and its judgement; nothing is fetched, no script runs, every word
that came from outside is escaped.
"""

from __future__ import annotations

import importlib.resources
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fedai.charts import style_of
from fedai.figures import (
    cohort_flow,
    counted,
    differences,
    display_name,
    escape,
    forest,
    learning_curves,
    listed,
    main_difference,
    many_rocs,
    measure_of,
    note_of,
    one_roc,
    styles,
)
from fedai.judgement import Judgement
from fedai.results import CENTRALISED, FEDERATED, MEAN_OF_LOCAL, Comparison, Difference, Result
from fedai.tables import Table, number, results_tables, signed, signed_range, spell_range

Json = Mapping[str, Any]

MOST_SITES_NAMED = 6


def render(record: Json, comparison: Comparison, judgement: Judgement) -> str:
    """The whole report as one HTML text. `record` is the run's plain JSON from the server's database."""
    sections = [
        _header(record),
        _summary(record, comparison),
        _results(comparison),
        _curves(comparison, judgement),
        _cohorts(record),
        _training(record, comparison),
        _not_measured(record, comparison),
        _methods(record, comparison),
    ]
    style = importlib.resources.files("fedai").joinpath("templates/report.css").read_text("utf-8")
    title = f"{escape(record.get('run', 'run'))} · fedai report"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(sections)
    head += f"<style>{style}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _header(record: Json) -> str:
    study = record.get("study", {})
    took = _duration(float(record.get("seconds") or 0))
    line = f"{str(record.get('state', '')).capitalize()}; started {_moment(record)}, took {took}"
    reason = f'<p class="warning">{escape(record["reason"])}</p>' if record.get("reason") else ""
    return (
        '<header><p class="kind">Federated training · report of a run</p>'
        f"<h1>{escape(record.get('run', ''))}</h1><p>{escape(_statement(study))}</p>"
        f'<p class="muted">{escape(line)}</p>{reason}</header>'
    )


def _statement(study: Json) -> str:
    """What the study is for; a purpose is words, or a declaration with words in it."""
    purpose = study.get("purpose", "")
    return str(purpose.get("statement", "")) if isinstance(purpose, dict) else str(purpose)


def _moment(record: Json) -> str:
    """When the run started, in UTC to the minute; as it stands if it isn't an ISO time."""
    text = str(record.get("started", ""))
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# Summary


def _summary(record: Json, comparison: Comparison) -> str:
    sentences = [_what_was_done(record, comparison), _what_came_out(comparison), _worst_site(comparison)]
    text = " ".join(s for s in sentences if s)
    return f"<section><h2>Summary</h2><p>{escape(text)}</p>{_tiles(comparison)}</section>"


def _what_was_done(record: Json, comparison: Comparison) -> str:
    splits = [c.get("splits", {}).get("train", {}) for c in record.get("cohorts", {}).values()]
    cases, patients = (sum(int(s.get(key, 0)) for s in splits) for key in ("cases", "patients"))
    first = comparison.models[0].pooled
    return (
        f"{_named_sites(comparison.sites)} trained one model together in "
        f"{counted(len(record.get('rounds', [])), 'round')}, on {counted(cases, 'image')} of "
        f"{counted(patients, 'patient')}, without an image leaving its site. All models were then judged on "
        f"the same {counted(first.cases, 'image')} of {counted(first.patients, 'other patient')}, held out "
        "from the start."
    )


def _named_sites(sites: Sequence[str]) -> str:
    if len(sites) == 1:
        return f"One site ({sites[0]})"
    return f"The sites {listed(sites)}" if len(sites) <= MOST_SITES_NAMED else f"{len(sites)} sites"


def _what_came_out(comparison: Comparison) -> str:
    federated = comparison.model(FEDERATED)
    if not federated or federated.pooled.auroc.value is None:
        return "The test cases don't allow an AUROC of the federated model."
    sentences = [f"The federated model's {measure_of(comparison)} was {_with_interval(federated.pooled)}."]
    for other, name in REFERENCES.items():
        found = main_difference(comparison, other)
        if found:
            sentences.append(_spell_out(found, name))
    return " ".join(sentences)


REFERENCES = {
    MEAN_OF_LOCAL: "the models that each site trained alone, on average",
    CENTRALISED: "the model trained on all data in one place",
}


def _with_interval(result: Result) -> str:
    ci95 = result.auroc.ci95
    return number(result.auroc.value) + (f" (95% CI {spell_range(ci95)})" if ci95 else "")


def _spell_out(found: Difference, other: str) -> str:
    if not found.ci95:
        return f"Its difference from {other} was {signed(found.difference)}, with no interval to be had."
    low, high = found.ci95
    numbers = f"(paired difference {signed(found.difference)}, 95% CI {signed_range(found.ci95)})"
    if low <= 0 <= high:
        return f"No difference could be shown from {other} {numbers}."
    return f"It was {'better' if low > 0 else 'worse'} than {other} {numbers}."


def _worst_site(comparison: Comparison) -> str:
    """Where the federated model did worst, if all sites can be compared: the same classes at each."""
    federated = comparison.model(FEDERATED)
    if not federated or len(federated.sites) < 2:
        return ""
    known = [(r.auroc.value, s) for s, r in federated.sites.items() if r.auroc.value is not None]
    if any(r.averaged != comparison.tasks for r in federated.sites.values()) or not known:
        return ""
    site = min(known)[1]
    return f"By site, it was lowest at {site}: {_with_interval(federated.sites[site])}."


def _tiles(comparison: Comparison) -> str:
    federated, central = comparison.model(FEDERATED), comparison.model(CENTRALISED)
    tiles = []
    if federated:
        tiles.append(_tile("Federated", federated.pooled, "main"))
    values = [m.pooled.auroc.value for m in comparison.local if m.pooled.auroc.value is not None]
    if values:
        scope = f"mean of {len(values)}, {number(min(values))} to {number(max(values))}"
        tiles.append(_tile_of("Each site alone", number(math.fsum(values) / len(values)), scope))
    if central:
        tiles.append(_tile("All data in one place", central.pooled))
    note = measure_of(comparison)
    note = f"{note[0].upper()}{note[1:]}, on the test images of all sites."
    return f'<div class="tiles">{"".join(tiles)}</div>{note_of(note)}'


def _tile(name: str, result: Result, kind: str = "") -> str:
    ci95 = result.auroc.ci95
    scope = f"95% CI {spell_range(ci95)}" if ci95 else "no interval"
    return _tile_of(name, number(result.auroc.value), scope, kind)


def _tile_of(name: str, value: str, scope: str, kind: str = "") -> str:
    return (
        f'<div class="tile {kind}"><span class="name">{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(scope)}</span></div>"
    )


# Results


def _results(comparison: Comparison) -> str:
    shown = "".join(_html_table(table) for table in results_tables(comparison, display_name))
    figures = forest(comparison) + differences(comparison)
    return f"<section><h2>How well each model does</h2>{figures}{shown}</section>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = [f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows]
    note = note_of(table.note) if table.note else ""
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{note}"


def _cell(text: str) -> str:
    """A table's text with its intervals kept in one line."""
    return re.sub(r"(?<=\d) to (?=[−+&\d])", "&nbsp;to&nbsp;", escape(text))


def _curves(comparison: Comparison, judgement: Judgement) -> str:
    draw = one_roc if len(comparison.tasks) == 1 else many_rocs
    return f"<section><h2>ROC curves, all sites together</h2>{draw(comparison, judgement)}</section>"


# The run


def _cohorts(record: Json) -> str:
    cohorts = record.get("cohorts", {})
    panels = "".join(cohort_flow(site, cohort) for site, cohort in cohorts.items())
    classes = record.get("study", {}).get("task", {}).get("classes", [])
    note = "Counts are of images; pat. = patients. All images of a patient are in the same split."
    return (
        f"<section><h2>Which images were used</h2><div class='panels'>{panels}</div>"
        f"{note_of(note)}{_html_table(_table_of_splits(cohorts, classes))}</section>"
    )


def _table_of_splits(cohorts: Json, classes: Sequence[str]) -> Table:
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


def _training(record: Json, comparison: Comparison) -> str:
    rounds = record.get("rounds", [])
    if not rounds:
        return "<section><h2>Training</h2><p>No round was closed.</p></section>"
    sites = list(record.get("cohorts", {})) or list(comparison.sites)
    drawn = styles(comparison)
    names = {s: drawn.get(f"local:{s}", style_of(i)) for i, s in enumerate(sites)}
    return (
        f"<section><h2>Training, round by round</h2>{learning_curves(rounds, names)}"
        f"{_html_table(_table_of_rounds(rounds))}</section>"
    )


def _table_of_rounds(rounds: Sequence[Json]) -> Table:
    rows = []
    for r in rounds:
        refused = [f"{site} ({code})" for site, code in r.get("refused", {}).items()]
        who = [", ".join(names) or "–" for names in (r.get("answered", []), r.get("late", []), refused)]
        cases = sum(int(n) for n in r.get("cases", {}).values())
        checkpoint = str(r.get("checkpoint") or "")[:12] or "–"
        rows.append((str(r["number"]), *who, f"{cases:,}", f"{float(r.get('seconds') or 0):.1f}", checkpoint))
    header = ("Round", "Answered", "Late", "Refused or failed", "Images", "Seconds", "Checkpoint")
    return Table("Who took part in each round", header, tuple(rows))


def _not_measured(record: Json, comparison: Comparison) -> str:
    found = [*_gaps_of_this_run(record, comparison), *GAPS]
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return f"<section><h2>What was not measured</h2><ul>{items}</ul></section>"


GAPS = (
    "How the models do at a hospital that took no part in training.",
    "Whether scores are probabilities: calibration is only seen through the Brier score.",
    "Subgroups, such as sex, age or scanner maker.",
    "What the finished model could reveal of its training images.",
    "Readers with and without the model; any effect on patients.",
)


def _gaps_of_this_run(record: Json, comparison: Comparison) -> list[str]:
    gaps = []
    for site in comparison.sites:
        result = comparison.models[0].sites[site]
        if result.auroc.value is None:
            gaps.append(f"AUROC at {site}: its test images are all of one class, or none.")
        elif result.auroc.ci95 is None:
            gaps.append(f"An interval at {site}: too few patients in its test images.")
    left_out = record.get("left_out", {})
    gaps += [
        f"The models at {s}: "
        + (f"left out of the judgement ({left_out[s]})." if s in left_out else "it gave no test scores.")
        for s in record.get("cohorts", {})
        if s not in comparison.sites
    ]
    gaps += [
        f"Anything at {s}: it refused the study or failed ({code})."
        for s, code in record.get("refused", {}).items()
    ]
    if not comparison.model(CENTRALISED):
        gaps.append("A model trained on all data in one place: the data may not be brought together.")
    if any(r.get("late") for r in record.get("rounds", [])):
        gaps.append("Updates of sites that were late in a round are not part of that round's model.")
    return gaps


def _methods(record: Json, comparison: Comparison) -> str:
    study = record.get("study", {})
    facts = {
        "Study": f"{study.get('name', '')}, SHA-256 {record.get('study_hash', '')}",
        "Final model": str((record.get("rounds") or [{}])[-1].get("checkpoint") or "–"),
        **_versions(record.get("versions", {})),
    }
    listed_facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in _method_texts(comparison))
    return f"<section><h2>Methods</h2>{text}<dl>{listed_facts}</dl>{note_of(USE)}</section>"


USE = "For research. Nothing here shows that a model is fit for use in patients."


def _versions(versions: Json) -> dict[str, str]:
    """Versions of the software: one line if all sites run the same, else one per site."""
    by_site = {where: v if isinstance(v, Mapping) else versions for where, v in versions.items()}
    lines = {where: ", ".join(f"{k} {v}" for k, v in found.items()) for where, found in by_site.items()}
    if len(set(lines.values())) <= 1:
        return {"Versions": next(iter(lines.values()), "–")}
    return {f"Versions at {where}": line for where, line in lines.items()}


def _method_texts(comparison: Comparison) -> list[str]:
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
        f"{comparison.threshold:g} or more, as fixed in the study.",
    ]
