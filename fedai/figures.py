"""The report's figures: intervals of models and differences, ROC curves, learning curves, cohorts."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedai import charts
from fedai.judgement import Judgement
from fedai.results import (
    CENTRALISED,
    FEDERATED,
    LOCAL,
    MEAN_OF_LOCAL,
    POOLED,
    ClassResult,
    Comparison,
    Difference,
    Measure,
    ModelResults,
    Result,
)
from fedai.tables import Table, spell, spell_difference, spell_p

if TYPE_CHECKING:
    from fedai.outline_results import OutlineComparison, OutlineDifference

Json = Mapping[str, Any]

MOST_MODELS_PER_SITE = 6
UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STEPS = {
    "found": "Images found",
    "deidentified": "De-identified",
    "consented": "Consent allows it",
    "labelled": "Labelled",
    "eligible": "Eligible",
    "used": "Used",
}
# What an exclusion is called, and the step it comes before.
LOSSES = {
    "quarantined": ("quarantined", "deidentified"),
    "unreadable_pixels": ("unreadable pixels", "deidentified"),
    "duplicate": ("duplicates", "deidentified"),
    "withdrawn": ("withdrawn", "deidentified"),
    "no_consent": ("no consent on record", "consented"),
    "consent_expired": ("consent expired", "consented"),
    "consent_scope": ("consent is for other uses", "consented"),
    "unlabelled": ("without a label", "labelled"),
    "ambiguous_key": ("ambiguous label", "eligible"),
    "ambiguous_label": ("ambiguous label", "eligible"),
    "same_image": ("same image of another patient", "eligible"),
    "filtered": ("not asked for by the study", "eligible"),
    "label_not_in_study": ("other label", "eligible"),
    "modality": ("other modality", "eligible"),
    "other_modality": ("other modality", "eligible"),
}


def escape(value: object) -> str:
    return html.escape(str(value))


def counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def measure_of(comparison: Comparison) -> str:
    return "AUROC" if len(comparison.tasks) == 1 else f"mean AUROC over {len(comparison.tasks)} classes"


def main_difference(comparison: Comparison, other: str, cases_of: str = POOLED) -> Difference | None:
    same = (
        d for d in comparison.differences if (d.b, d.cases_of, d.of) == (other, cases_of, comparison.main)
    )
    return next(same, None)


def styles(comparison: Comparison | OutlineComparison) -> dict[str, charts.Style]:
    """How each model is drawn. A site has the style of its local-only model."""
    fixed = {
        comparison.against: charts.Style(charts.BLUE, "", 3.0),
        comparison.sibling(CENTRALISED): charts.Style(charts.DARK, "7 4", 2.0),
    }
    others = [m.name for m in comparison.models if m.name not in fixed]
    return fixed | {name: charts.style_of(i) for i, name in enumerate(others)}


def display_name(model: str) -> str:
    """A model's name for readers."""
    run, _, own = model.rpartition("/")
    start = f"{run}: " if run else ""
    if own.startswith(LOCAL):
        return f"{start}{own.removeprefix(LOCAL)} alone"
    return start + {FEDERATED: "Federated", CENTRALISED: "All data in one place"}.get(own, own)


def forest(comparison: Comparison) -> str:
    """Every model's AUROC with its interval: on all sites' test cases, then on each site's."""
    groups = [
        (POOLED, comparison.models),
        *((site, _shown_at(comparison, site)) for site in comparison.sites),
    ]
    measures = [_result_of(m, where).auroc for where, models in groups for m in models]
    ends = [v for m in measures for v in (*(m.ci95 or ()), m.value) if v is not None]
    axis = charts.axis_for("AUROC", [*ends, 1.0], 0, 1)
    pictures = [_forest_group(comparison, where, models, axis) for where, models in groups]
    caption = (
        f"Dot: {measure_of(comparison)} on test images. Line: its 95% interval. Models marked “alone” were "
        "trained at one site only and are judged at every site."
    )
    return "".join(pictures) + note_of(caption)


def _shown_at(comparison: Comparison, site: str) -> tuple[ModelResults, ...]:
    """All models, or where they are many, those that matter at a site: the shared ones and its own."""
    if len(comparison.models) <= MOST_MODELS_PER_SITE:
        return comparison.models
    return tuple(m for m in comparison.models if m.trained_at in ("", site))


def _result_of(model: ModelResults, where: str) -> Result:
    return model.pooled if where == POOLED else model.sites[where]


def _forest_group(
    comparison: Comparison, where: str, models: Sequence[ModelResults], axis: charts.Axis
) -> str:
    bars = [_model_bar(comparison, model.name, _result_of(model, where).auroc) for model in models]
    first = _result_of(models[0], where)
    name = "All sites" if where == POOLED else where
    scope = f"{counted(first.cases, 'image')} of {counted(first.patients, 'patient')}{_positives(first)}"
    return wide(charts.intervals(bars, axis, heading=f"{name}: {scope}"))


def _model_bar(comparison: Comparison, model: str, auroc: Measure) -> charts.Bar:
    style, main = styles(comparison)[model], model == comparison.against
    return charts.Bar(display_name(model), style, auroc.value, auroc.ci95, spell(auroc), main)


def wide(picture: str) -> str:
    """A picture as broad as the page."""
    return f'<figure class="wide">{picture}</figure>'


def note_of(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>'


def html_table(table: Table) -> str:
    """A table with its caption and note."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = [f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows]
    note = note_of(table.note) if table.note else ""
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{note}"


def _cell(text: str) -> str:
    """A table's text with its intervals kept in one line."""
    return re.sub(r"(?<=\d) to (?=[−+&\d])", "&nbsp;to&nbsp;", escape(text))


def _positives(result: Result) -> str:
    """How many show the finding; for many classes, which of them are missing here."""
    if len(result.classes) == 1:
        only = result.classes[0]
        return f", {only.positives:,} with {only.name} ({counted(only.positive_patients, 'patient')})"
    missing = [c.name for c in result.classes if c.name not in result.averaged]
    return f"; mean without {listed(missing)}" if missing else ""


def differences(comparison: Comparison) -> str:
    """The federated model against the others on all test cases, and against each site's own at that site."""
    found = [d for d in comparison.differences if d.cases_of == POOLED and d.of == comparison.main]
    local = [(comparison.sibling(f"{LOCAL}{site}"), site) for site in comparison.sites]
    own = [main_difference(comparison, model, site) for model, site in local]
    first = display_name(comparison.against)
    groups = [
        (f"{first} minus …, all sites", found),
        (f"{first} minus each site's own model, at that site", [d for d in own if d]),
    ]
    ends = [v for _, ds in groups for d in ds for v in (*(d.ci95 or ()), d.difference)]
    axis = charts.axis_for("difference", [*ends, 0.0], -1, 1)
    pictures = [_difference_group(comparison, heading, ds, axis) for heading, ds in groups if ds]
    note = note_of(PAIRED)
    return f"<h3>Differences in {measure_of(comparison)}</h3>{''.join(pictures)}{note}" if pictures else ""


PAIRED = (
    "Right of the dashed line: the first model is better. Differences are paired by image and clustered by "
    "patient; p is adjusted by Holm's method over the models compared on the same images, intervals are not."
)


def _difference_group(
    comparison: Comparison, heading: str, differences: Sequence[Difference], axis: charts.Axis
) -> str:
    bars = [difference_bar(comparison, d) for d in differences]
    return wide(charts.intervals(bars, axis, heading=heading, reference=0.0))


def difference_bar(
    comparison: Comparison | OutlineComparison, d: Difference | OutlineDifference
) -> charts.Bar:
    """A row of differences between models, in the other one's style."""
    style = styles(comparison).get(d.b, charts.Style(charts.BLUE))
    name, main = ("mean of the sites alone", True) if d.b == MEAN_OF_LOCAL else (display_name(d.b), False)
    text = f"{spell_difference(d)}  p {sign_of_p(spell_p(d.p_adjusted))}"
    return charts.Bar(name, style, d.difference, d.ci95, text, main)


def sign_of_p(p: str) -> str:
    return p.replace("<", "< ") if p.startswith(("<", "–")) else f"= {p}"


def _roc(comparison: Comparison, judgement: Judgement, k: int, size: tuple[int, int]) -> str:
    drawn, lines = styles(comparison), []
    for model in comparison.models:
        fpr, tpr = judgement.merged(model.name).histogram.roc(k)
        points = without_repeats(list(zip(fpr.tolist(), tpr.tolist(), strict=True)))
        lines.append(charts.Line(display_name(model.name), drawn[model.name], points))
        lines.append(charts.Line("", drawn[model.name], [_at_threshold(model.pooled.classes[k])], dots=True))
    x, y = (charts.Axis(label, 0, 1, UNIT_TICKS) for label in ("1 − specificity", "Sensitivity"))
    return charts.curves(lines, x, y, title=f"ROC curves, {comparison.tasks[k]}", size=size, diagonal=True)


def _at_threshold(result: ClassResult) -> tuple[float, float]:
    calls = (result.specificity.value, result.sensitivity.value)
    specificity, sensitivity = (math.nan if value is None else value for value in calls)
    return 1 - specificity, sensitivity


def without_repeats(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without repeats and points in the middle of a level or upright stretch."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and any(kept[-2][i] == kept[-1][i] == point[i] for i in (0, 1)):
            kept.pop()
        kept.append(point)
    return kept


def one_roc(comparison: Comparison, judgement: Judgement) -> str:
    """ROC curves of a task with two classes, a dot at the threshold."""
    drawn = styles(comparison)
    items = [(display_name(m.name), drawn[m.name], spell(m.pooled.auroc)) for m in comparison.models]
    picture = _roc(comparison, judgement, 0, (400, 380))
    note = note_of(f"Dots: the threshold of {comparison.threshold:g}.")
    return f'<figure class="beside"><div>{picture}</div><div>{legend(items)}{note}</div></figure>'


def many_rocs(comparison: Comparison, judgement: Judgement) -> str:
    """ROC curves of each class against the rest."""
    drawn = styles(comparison)
    panels = [
        f"<div><h3>{escape(task)}</h3>{_roc(comparison, judgement, k, (260, 250))}</div>"
        for k, task in enumerate(comparison.tasks)
    ]
    items = [(display_name(m.name), drawn[m.name], "") for m in comparison.models]
    note = note_of(f"Each class against the rest. Dots: the threshold of {comparison.threshold:g}.")
    return f'{legend(items)}<div class="panels">{"".join(panels)}</div>{note}'


def legend(items: Iterable[tuple[str, charts.Style, str]]) -> str:
    """Names beside a stroke of their style, each with an AUROC in small print if one is given."""
    return f'<ul class="legend">{"".join(_legend_line(*item) for item in items)}</ul>'


def _legend_line(name: str, style: charts.Style, auroc: str) -> str:
    small = f"<small>AUROC {escape(auroc)}</small>" if auroc else ""
    return f"<li>{charts.swatch(style)}<span>{escape(name)}{small}</span></li>"


def learning_curves(rounds: Sequence[Json], names: Mapping[str, charts.Style], measure: str = "AUROC") -> str:
    """By round and site: AUROC or Dice on validation images (mean over classes or structures), and the loss
    in training.
    """
    values = [
        charts.Line(s, d, [(r["number"], _validation(r, s, measure.lower())) for r in rounds], True)
        for s, d in names.items()
    ]
    loss = [charts.Line(s, d, [(r["number"], _loss(r, s)) for r in rounds], True) for s, d in names.items()]
    panels = [
        _curve_panel(f"Validation {measure} at the start of each round", measure, values, rounds, 1.0),
        _curve_panel("Training loss in each round", "loss", loss, rounds, math.inf),
    ]
    shown = legend((s, d, "") for s, d in names.items())
    return f'<figure>{shown}<div class="panels two">{"".join(panels)}</div></figure>'


def _curve_panel(
    title: str, label: str, lines: Sequence[charts.Line], rounds: Sequence[Json], most: float
) -> str:
    numbers = [float(r["number"]) for r in rounds]
    step = max(1, math.ceil(len(numbers) / 8))
    x = charts.Axis("Round", numbers[0] - 0.3, numbers[-1] + 0.3, tuple(numbers[::step]))
    values = [v for line in lines for _, v in line.points]
    y = charts.axis_for(label, values, 0, most)
    return f"<div><h3>{escape(title)}</h3>{charts.curves(lines, x, y, title=title, size=(370, 260))}</div>"


def _validation(closed: Json, site: str, key: str) -> float:
    values = closed.get("validation", {}).get(site, {}).get(key) or []
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _loss(closed: Json, site: str) -> float:
    value = closed.get("train_loss", {}).get(site)
    return math.nan if value is None else float(value)


def cohort_flow(site: str, cohort: Json) -> str:
    """One site's way from images found to images used, and the three splits."""
    counts, excluded = cohort.get("flow", {}), cohort.get("excluded", {})
    told = [key for key in STEPS if key in counts]  # a run of an earlier release has no step for consent
    steps = [(STEPS[key], int(counts[key])) for key in told]
    losses = [_losses_before(key, excluded) for key in told[1:]]
    ends = [(name, _split_contents(split)) for name, split in cohort.get("splits", {}).items()]
    picture = charts.flow(steps, losses, ends, title=f"Images at {site}")
    return f"<div><h3>{escape(site)}</h3>{picture}</div>"


def _losses_before(step: str, excluded: Json) -> str:
    known = [(LOSSES.get(key, (key, "used")), int(n)) for key, n in excluded.items()]
    return "|".join(f"{n:,} {name}" for (name, before), n in known if before == step and n)


def _split_contents(split: Json) -> str:
    return f"{int(split.get('cases', 0)):,}|{int(split.get('patients', 0)):,} pat."
