"""Figures of what a judgement holds beside ROC curves: precision and recall, calibration, decision curves,
sites as a sample of hospitals, the test set's way through the model, the generalization matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fedai import charts
from fedai.figures import UNIT_TICKS, counted, display_name, escape, legend, note_of, styles, without_repeats
from fedai.judgement import Judgement
from fedai.matrix import Matrix, cell_text, row_name, shade
from fedai.results import POOLED, Comparison, Measure, ModelResults, back
from fedai.tables import spell, spell_range

Draw = Callable[[Comparison, Judgement, int, tuple[int, int]], str]
FEWEST_SHOWN = 5  # cases of a bin of the calibration curve


def panels(comparison: Comparison, judgement: Judgement, draw: Draw, note: str) -> str:
    """One figure for each class against the rest, with one legend."""
    drawn, single = styles(comparison), len(comparison.tasks) == 1
    size = (400, 340) if single else (260, 240)
    made = [
        f"<div>{'' if single else f'<h3>{escape(task)}</h3>'}{draw(comparison, judgement, k, size)}</div>"
        for k, task in enumerate(comparison.tasks)
    ]
    items = [(display_name(m.name), drawn[m.name], "") for m in comparison.models]
    if single:
        return (
            f'<figure class="beside"><div>{made[0]}</div><div>{legend(items)}{note_of(note)}</div></figure>'
        )
    return f'{legend(items)}<div class="panels">{"".join(made)}</div>{note_of(note)}'


def precision_recall(comparison: Comparison, judgement: Judgement, k: int, size: tuple[int, int]) -> str:
    """Precision against recall, scores falling."""
    drawn, lines = styles(comparison), []
    for model in comparison.models:
        counts = judgement.merged(model.name).histogram.counts[k]
        fp, tp = np.cumsum(counts[:, ::-1], axis=1)
        shown = (tp + fp > 0) & (counts[:, ::-1].sum(axis=0) > 0)
        recall, precision = tp[shown] / max(1, tp[-1]), tp[shown] / (tp + fp)[shown]
        points = without_repeats(list(zip(recall.tolist(), precision.tolist(), strict=True)))
        lines.append(charts.Line(display_name(model.name), drawn[model.name], points))
    x, y = (charts.Axis(label, 0, 1, UNIT_TICKS) for label in ("Recall (sensitivity)", "Precision (PPV)"))
    title = f"Precision and recall, {comparison.tasks[k]}"
    return charts.curves(lines, x, y, title=title, size=size)


def calibration(comparison: Comparison, judgement: Judgement, k: int, size: tuple[int, int]) -> str:
    """Observed share against mean score, by bins of the score."""
    drawn, lines = styles(comparison), []
    for model in comparison.models:
        mean, share, cases = judgement.merged(model.name).calibration.curve(k)
        known = cases >= FEWEST_SHOWN
        points = list(zip(mean[known].tolist(), share[known].tolist(), strict=True))
        lines.append(charts.Line(display_name(model.name), drawn[model.name], points, dots=True))
    x, y = (charts.Axis(label, 0, 1, UNIT_TICKS) for label in ("Mean score", "Observed share"))
    title = f"Calibration, {comparison.tasks[k]}"
    return charts.curves(lines, x, y, title=title, size=size, diagonal=True)


def decision(comparison: Comparison, judgement: Judgement, k: int, size: tuple[int, int]) -> str:
    """Net benefit by threshold, with those of calling all cases positive, and none."""
    drawn, of = styles(comparison), comparison.models[0].pooled.classes[k]
    lines = []
    for model in comparison.models:
        found = model.pooled.classes[k].net_benefits
        points = [(n.threshold, math.nan if n.model.value is None else n.model.value) for n in found]
        lines.append(charts.Line(display_name(model.name), drawn[model.name], points))
    top = max([y for line in lines for _, y in line.points if math.isfinite(y)], default=1.0)
    low = -0.25 * max(top, 0.04)
    prevalence = of.positives / max(1, of.positives + of.negatives)
    everybody = [
        (0.0, prevalence),
        *((n.threshold, n.treat_all) for n in of.net_benefits if n.treat_all >= low),
    ]
    lines.append(charts.Line("All positive", charts.Style(charts.FAINT, "", 1.4), everybody))
    lines.append(charts.Line("None", charts.Style(charts.AXIS, "4 3", 1.2), [(0.0, 0.0), (1.0, 0.0)]))
    lines = [_within(line, low) for line in lines]
    x, y = charts.Axis("Threshold", 0, 1, UNIT_TICKS), charts.axis_for("Net benefit", [low, top], low)
    return charts.curves(lines, x, y, title=f"Decision curves, {comparison.tasks[k]}", size=size)


def _within(line: charts.Line, low: float) -> charts.Line:
    """Without the points below the picture."""
    points = [(x, y if y >= low else math.nan) for x, y in line.points]
    return charts.Line(line.name, line.style, points, line.dots)


PRECISION_NOTE = "A model that knows nothing has a precision of the share of positives at any recall."
CALIBRATION_NOTE = (
    f"On the dashed line scores are probabilities. Bins with fewer than {FEWEST_SHOWN} images are left out."
)
DECISION_NOTE = (
    "Net benefit: true positives less false ones, weighed by the odds of the threshold, per image. Grey: "
    "calling every image positive; dashed: none."
)


def over_sites(comparison: Comparison) -> str:
    """Forest plot of the main model: each site, all images together, and sites as a sample of hospitals."""
    model = comparison.main_model
    if model is None or len(model.sites) < 2:
        return ""
    bars = _forest_bars(model, styles(comparison)[model.name])
    sure = [bar for bar in bars if bar.value is not None]  # a further hospital's range may be all there is
    ends = [v for bar in sure for v in (*(bar.ci95 or ()), bar.value) if v is not None]
    axis = charts.axis_for("AUROC", [*ends, 1.0], 0, 1)
    picture = charts.intervals(bars, axis, heading=f"{display_name(model.name)}, over sites")
    note = (
        "All images: as one population of patients. Random effects: Paule and Mandel's variance between "
        "sites, Hartung and Knapp's interval. A further hospital: where the AUROC of 95% of hospitals like "
        "these is expected."
    )
    heterogeneity = f" I² {model.across.i2:.0%}." if model.across else ""
    return f'<figure class="wide">{picture}</figure>{note_of(note + heterogeneity)}'


def _forest_bars(model: ModelResults, style: charts.Style) -> list[charts.Bar]:
    bars = [
        charts.Bar(site, charts.Style(charts.DARK), r.auroc.value, r.auroc.ci95, spell(r.auroc))
        for site, r in model.sites.items()
    ]
    pooled = model.pooled.auroc
    bars.append(charts.Bar("All images", style, pooled.value, pooled.ci95, spell(pooled), True))
    if model.across:
        estimate, ci95, predicted = back(model.across)
        told = Measure(estimate, ci95)
        bars.append(charts.Bar("Random effects", style, estimate, ci95, spell(told), True))
        if predicted:
            faint = charts.Style(charts.AXIS, "3 3")
            bars.append(charts.Bar("A further hospital", faint, None, predicted, spell_range(predicted)))
    return bars


def calls_flow(comparison: Comparison) -> str:
    """The test images' way, as STARD 2015 asks: called by the model, and what they were."""
    model = comparison.main_model
    if model is None or len(comparison.tasks) > 1:
        return ""
    result = model.pooled.classes[0]
    tp, fp, tn, fn = result.counts
    finding, at = comparison.tasks[0], f"{comparison.threshold:g}"
    boxes = [
        (240, 1, 180, "Test images", f"{model.pooled.cases:,}|{counted(model.pooled.patients, 'patient')}"),
        (60, 86, 180, f"Score {at} or more", f"{tp + fp:,}"),
        (420, 86, 180, f"Score below {at}", f"{fn + tn:,}"),
        (1, 160, 150, f"{finding}", f"{tp:,}|true positive"),
        (161, 160, 150, f"no {finding}", f"{fp:,}|false positive"),
        (361, 160, 150, f"{finding}", f"{fn:,}|false negative"),
        (521, 160, 150, f"no {finding}", f"{tn:,}|true negative"),
    ]
    parts = [charts.box(x, y, w, 50 if "|" in count else 36, name, count) for x, y, w, name, count in boxes]
    parts += [
        _branch(330, 51, 86, (150, 510)),
        _branch(150, 122, 160, (76, 236)),
        _branch(510, 122, 160, (436, 596)),
    ]
    picture = charts.picture(
        "".join(parts), (672, 212), f"Test images and calls of {display_name(model.name)}"
    )
    heading = f"<h3>What {escape(display_name(model.name))} called the test images, all sites together</h3>"
    return f'{heading}<figure class="wide">{picture}</figure>'


def _branch(x: float, top: float, bottom: float, ends: Sequence[float]) -> str:
    """From a box down to several."""
    middle = (top + bottom) / 2
    parts = [charts.segment(x, top, x, middle, charts.AXIS)]
    parts.append(charts.segment(min(ends), middle, max(ends), middle, charts.AXIS))
    parts += [
        charts.segment(end, middle, end, bottom, charts.AXIS) + charts.arrow(end, bottom) for end in ends
    ]
    return "".join(parts)


def heat_map(matrix: Matrix) -> str:
    """The matrix as a picture; frames mark what `Matrix.is_marked` does."""
    left, width, height, top = (300 if matrix.without else 190), 92, 30, 44
    parts = [charts.words(left, 14, "tested at", 11.5)]
    for j, site in enumerate(matrix.tested):
        name = "all sites" if site == POOLED else site
        parts.append(charts.words(left + width * (j + 0.5), 34, name[:14], 12, "middle", charts.BOLD))
    for i, (model, cells) in enumerate(zip(matrix.trained, matrix.cells, strict=True)):
        y = top + height * i
        name = row_name(matrix, model, display_name)[: left // 6 - 3]
        parts.append(charts.words(left - 8, y + 19, name, 12, "end"))
        for j, (site, cell) in enumerate(zip(matrix.tested, cells, strict=True)):
            frame = (charts.DARK, 1.6) if matrix.is_marked(model, site) else ("#ffffff", 1.0)
            parts.append(_cell(left + width * j, y, (width, height), shade(cell.value), frame))
            parts.append(charts.words(left + width * (j + 0.5), y + 19, cell_text(cell), 12.5, "middle"))
    size = (max(760, left + width * len(matrix.tested) + 4), top + height * len(matrix.trained) + 4)
    title = f"{matrix.measure} by where a model was trained and tested"
    return charts.picture("".join(parts), size, title)


def _cell(x: float, y: float, size: tuple[int, int], fill: str, frame: tuple[str, float]) -> str:
    place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size[0] - 2}" height="{size[1] - 2}"'
    return f'<rect {place} fill="{fill}" stroke="{frame[0]}" stroke-width="{frame[1]:g}"/>'
