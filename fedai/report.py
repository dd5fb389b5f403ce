"""The report of a run: one HTML file that needs nothing else, for a radiologist to read or to print on A4.

Everything in it comes from the run's record and its judgement; nothing is fetched, no script runs, every word
that came from outside is escaped.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fedai.checklists import checklists
from fedai.figures import (
    counted,
    differences,
    display_name,
    escape,
    forest,
    html_table,
    listed,
    main_difference,
    many_rocs,
    measure_of,
    note_of,
    one_roc,
)
from fedai.judgement import Judgement
from fedai.matrix import Matrix, left_out_of, matrix_of
from fedai.performance_figures import (
    CALIBRATION_NOTE,
    DECISION_NOTE,
    PRECISION_NOTE,
    calibration,
    decision,
    heat_map,
    over_sites,
    panels,
    precision_recall,
)
from fedai.results import CENTRALISED, MEAN_OF_LOCAL, Comparison, Difference, Result
from fedai.run_sections import (
    cohorts_section,
    method_texts,
    methods_section,
    not_measured_section,
    privacy_section,
    training_section,
)
from fedai.subgroup_tables import subgroups_section
from fedai.tables import Table, number, results_tables, signed, signed_range, spell_range, table_of_calls

if TYPE_CHECKING:
    from fedai.outline_results import OutlineDifference

Json = Mapping[str, Any]

MOST_SITES_NAMED = 6


def render(record: Json, comparison: Comparison, judgement: Judgement, others: Sequence[Json] = ()) -> str:
    """The whole report as one HTML text. `record` is the run's plain JSON from the server's database, of
    several runs that of the first; `others` are the records of the others."""
    sections = [
        header_section(record, others),
        _summary(record, comparison),
        cohorts_section(record, comparison),
        _results(comparison),
        subgroups_section(comparison, record.get("study", {}).get("judgement", {}).get("subgroups", ())),
        _curves(comparison, judgement),
        _probabilities(comparison, judgement),
        _matrix(matrix_of(comparison, left_out_of(_by_name(judgement, (record, *others))))),
        *(training_section(one, comparison) for one in (record, *others)),
        privacy_section(record),
        not_measured_section(record, comparison),
        methods_section(record, method_texts(comparison)),
        checklists_section(checklists(record, comparison)),
    ]
    return page(record, sections)


def page(record: Json, sections: Sequence[str]) -> str:
    """Sections as one HTML text."""
    style = importlib.resources.files("fedai").joinpath("templates/report.css").read_text("utf-8")
    title = f"{escape(record.get('run', 'run'))} · fedai report"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(sections)
    head += f"<style>{style}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def header_section(record: Json, others: Sequence[Json]) -> str:
    study = record.get("study", {})
    took = _duration(float(record.get("seconds") or 0))
    line = f"{str(record.get('state', '')).capitalize()}; started {_moment(record)}, took {took}"
    reason = f'<p class="warning">{escape(record["reason"])}</p>' if record.get("reason") else ""
    if others:
        names = listed([str(one.get("run", "")) for one in others])
        line += f"; compared with {names} on the same test images"
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
    first = comparison.models[0].pooled
    done = what_was_done(record, comparison.sites, first.cases, first.patients)
    sentences = [done, _what_came_out(comparison), _worst_site(comparison)]
    text = " ".join(s for s in sentences if s)
    return f"<section><h2>Summary</h2><p>{escape(text)}</p>{_tiles(comparison)}</section>"


def what_was_done(record: Json, sites: Sequence[str], cases: int, patients: int) -> str:
    """Who trained on how much, and on how many test images of how many patients `sites` judged the models."""
    absent = record.get("without", [])
    cohorts = {site: c for site, c in record.get("cohorts", {}).items() if site not in absent}
    splits = [c.get("splits", {}).get("train", {}) for c in cohorts.values()]
    trained = [sum(int(s.get(key, 0)) for s in splits) for key in ("cases", "patients")]
    return (
        f"{_named_sites([s for s in sites if s not in absent])} trained one model together in "
        f"{counted(len(record.get('rounds', [])), 'round')}, on {counted(trained[0], 'image')} of "
        f"{counted(trained[1], 'patient')}, without an image leaving its site. All models were then judged "
        f"on the same {counted(cases, 'image')} of {counted(patients, 'other patient')}, held out "
        f"from the start.{f' {listed(absent)} took no part in the training.' if absent else ''}"
    )


def _named_sites(sites: Sequence[str]) -> str:
    if len(sites) == 1:
        return f"One site ({sites[0]})"
    return f"The sites {listed(sites)}" if len(sites) <= MOST_SITES_NAMED else f"{len(sites)} sites"


def _what_came_out(comparison: Comparison) -> str:
    federated = comparison.main_model
    if not federated or federated.pooled.auroc.value is None:
        return "The test cases don't allow an AUROC of the federated model."
    sentences = [f"The federated model's {measure_of(comparison)} was {_with_interval(federated.pooled)}."]
    for other, name in REFERENCES.items():
        found = main_difference(comparison, comparison.sibling(other) if other != MEAN_OF_LOCAL else other)
        if found:
            sentences.append(spell_out(found, name))
    return " ".join(sentences)


REFERENCES = {
    MEAN_OF_LOCAL: "the models that each site trained alone, on average",
    CENTRALISED: "the model trained on all data in one place",
}


def _with_interval(result: Result) -> str:
    ci95 = result.auroc.ci95
    return number(result.auroc.value) + (f" (95% CI {spell_range(ci95)})" if ci95 else "")


def spell_out(found: Difference | OutlineDifference, other: str) -> str:
    """A difference from a model called `other`, as a sentence."""
    if not found.ci95:
        return f"Its difference from {other} was {signed(found.difference)}, with no interval to be had."
    low, high = found.ci95
    numbers = f"(paired difference {signed(found.difference)}, 95% CI {signed_range(found.ci95)})"
    if low <= 0 <= high:
        return f"No difference could be shown from {other} {numbers}."
    return f"It was {'better' if low > 0 else 'worse'} than {other} {numbers}."


def _worst_site(comparison: Comparison) -> str:
    """Where the federated model did worst, if all sites can be compared: the same classes at each."""
    federated = comparison.main_model
    if not federated or len(federated.sites) < 2:
        return ""
    known = [(r.auroc.value, s) for s, r in federated.sites.items() if r.auroc.value is not None]
    if any(r.averaged != comparison.tasks for r in federated.sites.values()) or not known:
        return ""
    site = min(known)[1]
    return f"By site, it was lowest at {site}: {_with_interval(federated.sites[site])}."


def _tiles(comparison: Comparison) -> str:
    federated, central = comparison.main_model, comparison.central
    tiles = []
    if federated:
        tiles.append(_tile(display_name(federated.name), federated.pooled, "main"))
    values = [m.pooled.auroc.value for m in comparison.local if m.pooled.auroc.value is not None]
    if values:
        scope = f"mean of {len(values)}, {number(min(values))} to {number(max(values))}"
        tiles.append(tile_of("Each site alone", number(math.fsum(values) / len(values)), scope))
    if central:
        tiles.append(_tile("All data in one place", central.pooled))
    note = measure_of(comparison)
    note = f"{note[0].upper()}{note[1:]}, on the test images of all sites."
    return f'<div class="tiles">{"".join(tiles)}</div>{note_of(note)}'


def _tile(name: str, result: Result, kind: str = "") -> str:
    ci95 = result.auroc.ci95
    scope = f"95% CI {spell_range(ci95)}" if ci95 else "no interval"
    return tile_of(name, number(result.auroc.value), scope, kind)


def tile_of(name: str, value: str, scope: str, kind: str = "") -> str:
    return (
        f'<div class="tile {kind}"><span class="name">{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(scope)}</span></div>"
    )


# Results


def _results(comparison: Comparison) -> str:
    shown = "".join(html_table(table) for table in results_tables(comparison, display_name))
    figures = forest(comparison) + over_sites(comparison) + differences(comparison)
    calls = html_table(table_of_calls(comparison, display_name)) if comparison.calls else ""
    return f"<section><h2>How well each model does</h2>{figures}{shown}{calls}</section>"


def _curves(comparison: Comparison, judgement: Judgement) -> str:
    draw = one_roc if len(comparison.tasks) == 1 else many_rocs
    precision = panels(comparison, judgement, precision_recall, PRECISION_NOTE)
    return (
        f"<section><h2>ROC curves, all sites together</h2>{draw(comparison, judgement)}</section>"
        f"<section><h2>Precision and recall, all sites together</h2>{precision}</section>"
    )


def _probabilities(comparison: Comparison, judgement: Judgement) -> str:
    return (
        "<section><h2>Whether scores are probabilities</h2>"
        f"{panels(comparison, judgement, calibration, CALIBRATION_NOTE)}</section>"
        "<section><h2>What calls are worth: decision curves</h2>"
        f"{panels(comparison, judgement, decision, DECISION_NOTE)}</section>"
    )


def _by_name(judgement: Judgement, records: Sequence[Json]) -> dict[str, Json]:
    """The records by what their runs are called in the names of models."""
    return dict(zip(dict.fromkeys(m.rpartition("/")[0] for m in judgement.models), records, strict=False))


def _matrix(matrix: Matrix) -> str:
    left_out = ", and a model on those of a site that its training left out" if matrix.without else ""
    note = note_of(f"{matrix.measure}. Frames: a site's own model on that site's own test images{left_out}.")
    return (
        "<section><h2>Trained here, tested there</h2>"
        f'<figure class="wide">{heat_map(matrix)}</figure>{note}</section>'
    )


def checklists_section(tables: Sequence[Table]) -> str:
    """The checklists, filled in as far as the run knows."""
    shown = "".join(html_table(table) for table in tables)
    note = "Items by number, in words of ours; what a run can't know is for the authors."
    return f'<section class="checklists"><h2>Reporting checklists</h2>{note_of(note)}{shown}</section>'
