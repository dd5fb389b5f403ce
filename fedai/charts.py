"""Charts as inline SVG: curves, intervals, flow. No script, no font, no address; every word is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedai.statistics import Interval

Points = Sequence[tuple[float, float]]

# Okabe & Ito's colours, told apart by readers who don't see all of them; after these, the dashes change.
BLUE, DARK = "#0b5cab", "#3a3a3a"
OTHERS = ("#d9820b", "#00876c", "#b8528f", "#7a5cc9", "#a3322b", "#4f9bd9", "#8a7a10")
DASHES = ("", "2 3", "8 3 2 3", "12 4")
BOLD = ' font-weight="700"'
LONGEST = 48  # letters of a row's name
GRID, AXIS, FAINT = "#e3e8ed", "#7b8794", "#b9c2cb"


@dataclass(frozen=True)
class Style:
    """How a model or a site is drawn, everywhere in the report."""

    colour: str
    dash: str = ""
    width: float = 1.8


@dataclass(frozen=True)
class Line:
    """A named series in data units; a gap starts a new stroke where y is not finite."""

    name: str
    style: Style
    points: Points
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """Label, range and ticks in data units."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]


@dataclass(frozen=True)
class Bar:
    """One row of an interval plot."""

    name: str
    style: Style
    value: float | None
    ci95: Interval | None
    text: str
    main: bool = False


def style_of(number: int) -> Style:
    """The style of the n-th local model or site."""
    return Style(OTHERS[number % len(OTHERS)], DASHES[number // len(OTHERS) % len(DASHES)])


def axis_for(label: str, values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Axis:
    """An axis whose round ticks enclose the finite values, kept within [least, most]."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = max(least, min(finite)), min(most, max(finite))
    step = _round_step(max(high - low, abs(high) / 100, 0.001) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, max(last, first + 1) + 1))
    return Axis(label, ticks[0], ticks[-1], ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if m * power >= rough * 0.999)


def curves(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    title: str,
    size: tuple[int, int] = (400, 330),
    diagonal: bool = False,
) -> str:
    """Curves in a frame. `title` is read by screen readers."""
    plot = _Plot(x, y, size)
    drawn = [plot.grid()]
    if diagonal:
        drawn.append(plot.stroke([(0.0, 0.0), (1.0, 1.0)], Style(FAINT, "4 4", 1.2)))
    drawn += [plot.line(line) for line in reversed(lines)]
    return picture("".join(drawn), size, title)


class _Plot:
    """Maps data to the picture's points and draws axes and strokes."""

    def __init__(self, x: Axis, y: Axis, size: tuple[int, int]) -> None:
        self.x, self.y = x, y
        self.left, self.top, self.right, self.bottom = 50, 10, size[0] - 12, size[1] - 42

    def across(self, value: float) -> float:
        return self.left + (value - self.x.low) / (self.x.high - self.x.low) * (self.right - self.left)

    def down(self, value: float) -> float:
        return self.bottom - (value - self.y.low) / (self.y.high - self.y.low) * (self.bottom - self.top)

    def grid(self) -> str:
        parts = [self._row(tick) for tick in self.y.ticks] + [self._column(tick) for tick in self.x.ticks]
        middle = (self.top + self.bottom) / 2
        parts.append(words((self.left + self.right) / 2, self.bottom + 36, self.x.label, 12, "middle"))
        turned = f' transform="rotate(-90 13 {middle:.1f})"'
        parts.append(words(13, middle, self.y.label, 12, "middle", turned))
        return "".join(parts)

    def _row(self, tick: float) -> str:
        y = self.down(tick)
        rule = segment(self.left, y, self.right, y, AXIS if tick == self.y.low else GRID)
        return rule + words(self.left - 6, y + 4, f"{tick:g}", 11, "end")

    def _column(self, tick: float) -> str:
        x = self.across(tick)
        rule = segment(x, self.top, x, self.bottom, AXIS if tick == self.x.low else GRID)
        return rule + words(x, self.bottom + 16, f"{tick:g}", 11, "middle")

    def stroke(self, points: Points, style: Style) -> str:
        path, pen = [], "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            path.append(f"{pen}{self.across(x):.1f} {self.down(y):.1f}")
            pen = "L"
        return f'<path d="{"".join(path)}" fill="none" {pen_of(style)}/>' if path else ""

    def line(self, line: Line) -> str:
        finite = [(x, y) for x, y in line.points if math.isfinite(y)] if line.dots else []
        dots = [dot(self.across(x), self.down(y), line.style.colour, 3) for x, y in finite]
        return self.stroke(line.points, line.style) + "".join(dots)


@dataclass(frozen=True)
class Strip:
    """One row of a plot of distributions: a line between `ends`, a box between the quartiles, the median. An
    infinite one lies beyond the axis."""

    name: str
    style: Style
    ends: Interval
    quartiles: Interval
    median: float
    text: str
    main: bool = False


class _Rows:
    """Rows with a name at the left, words at the right, and a place for each value between."""

    step, top, width = 22, 26, 760

    def __init__(self, rows: Sequence[Bar | Strip], axis: Axis) -> None:
        self.rows, self.axis = rows, axis
        self.left = _room_for([row.name for row in rows])
        self.right = self.width - 28 - 6.6 * max([len(row.text) for row in rows], default=0)
        self.bottom = self.top + self.step * len(rows)

    def across(self, value: float) -> float:
        clipped = min(max(value, self.axis.low), self.axis.high)
        share = (clipped - self.axis.low) / (self.axis.high - self.axis.low)
        return self.left + share * (self.right - self.left)

    def down(self, row: int) -> float:
        return self.top + self.step * (row + 0.5)

    def picture(self, marks: Sequence[str], heading: str, reference: float | None) -> str:
        """`marks` between the grid and the axis, with the rows' words."""
        across, top, bottom, low, high = self.across, 22, self.bottom, self.axis.low, self.axis.high
        drawn = [words(0, 15, heading, 13, extra=BOLD)]
        drawn += [segment(across(t), top, across(t), bottom, GRID) for t in self.axis.ticks]
        if reference is not None and low <= reference <= high:
            drawn.append(segment(across(reference), top, across(reference), bottom, AXIS, "4 3"))
        for i, row in enumerate(self.rows):
            weight, y = BOLD if row.main else "", self.down(i) + 4
            drawn.append(words(10, y, _cut(row.name), 12.5, extra=weight))
            drawn.append(words(self.right + 18, y, row.text, 12.5, extra=weight))
        drawn += [*marks, segment(self.left, bottom, self.right, bottom, AXIS)]
        drawn += [words(across(t), bottom + 15, f"{t:g}", 11, "middle") for t in self.axis.ticks]
        return picture("".join(drawn), (self.width, bottom + 20), heading)


def _room_for(names: Sequence[str]) -> int:
    """Points that the longest name takes, in steps, so that groups of rows mostly begin at the same place."""
    need = 24 + 6.3 * max([len(_cut(name)) for name in names], default=0)
    return 190 + 40 * max(0, math.ceil((need - 190) / 40))


def _cut(name: str) -> str:
    """A name that is too long for a row, without its middle."""
    return name if len(name) <= LONGEST else f"{name[:22]}…{name[23 - LONGEST :]}"


def intervals(bars: Sequence[Bar], axis: Axis, *, heading: str, reference: float | None = None) -> str:
    """Values with intervals, one row each, written out at the right; `heading` names the group of rows."""
    rows, marks = _Rows(bars, axis), list[str]()
    for i, bar in enumerate(bars):
        y, colour = rows.down(i), bar.style.colour
        if bar.ci95:
            low, high = map(rows.across, bar.ci95)
            marks.append(segment(low, y, high, y, colour, width=2.2))
        if bar.value is not None:
            marks.append(dot(rows.across(bar.value), y, colour, 4.5))
    return rows.picture(marks, heading, reference)


def strips(given: Sequence[Strip], axis: Axis, *, heading: str, reference: float | None = None) -> str:
    """Distributions, one row each, written out at the right; an arrow where an end lies beyond the axis."""
    rows, marks = _Rows(given, axis), list[str]()
    for i, strip in enumerate(given):
        y, colour = rows.down(i), strip.style.colour
        low, high = map(rows.across, strip.ends)
        left, right = map(rows.across, strip.quartiles)
        marks.append(segment(low, y, high, y, colour, width=1.6))
        beyond = ((low, -1, strip.ends[0]), (high, 1, strip.ends[1]))
        marks += [_tip(x, y, side, colour) for x, side, end in beyond if math.isinf(end)]
        place = f'x="{left:.1f}" y="{y - 6:.1f}" width="{max(right - left, 1):.1f}" height="12" rx="2"'
        marks.append(f'<rect {place} fill="#ffffff" stroke="{colour}" stroke-width="1.6"/>')
        middle = rows.across(strip.median)
        marks.append(segment(middle, y - 6, middle, y + 6, colour, "", 3.2))
    return rows.picture(marks, heading, reference)


def _tip(x: float, y: float, side: int, colour: str) -> str:
    back = x - 6 * side
    return f'<path d="M{back:.1f} {y - 4:.1f}L{back:.1f} {y + 4:.1f}L{x:.1f} {y:.1f}Z" fill="{colour}"/>'


def flow(
    steps: Sequence[tuple[str, int]], losses: Sequence[str], ends: Sequence[tuple[str, str]], *, title: str
) -> str:
    """A cohort's way down: boxes with counts, losses beside the arrows, and below what it was split into.

    `losses[i]` stands between step i and step i + 1, in lines parted by a bar; empty where nothing was lost.
    `ends`: name and count.
    """
    parts, y = [], 1.0
    for i, (name, count) in enumerate(steps):
        parts.append(box(1, y, 128, 34, name, f"{count:,}"))
        lost = losses[i] if i < len(losses) else ""
        if i < len(steps) - 1:
            parts.append(segment(65, y + 34, 65, y + 56, AXIS) + arrow(65, y + 56))
            parts += [words(141, y + 49 + 12 * j, line, 10.5) for j, line in enumerate(lost.split("|"))]
            parts += [segment(65, y + 45, 138, y + 45, FAINT)] if lost else []
        y += 57
    bottom = y + 20 + 34
    width = 240 / max(1, len(ends))
    for i, (name, contents) in enumerate(ends):
        x = 1 + i * width
        parts.append(segment(65, y - 23, 65, y - 10, AXIS) + segment(65, y - 10, x + 40, y - 10, AXIS))
        parts.append(segment(x + 40, y - 10, x + 40, y, AXIS) + arrow(x + 40, y))
        parts.append(box(x, y, width - 6, 48, name, contents))
    return picture("".join(parts), (244, int(bottom)), title)


def box(x: float, y: float, width: float, height: float, name: str, count: str) -> str:
    """A box with a name in its first line and a count (one line, or two parted by a bar) below."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="4"'
    lines = [words(x + 7, y + 14, name, 10.5)]
    for i, line in enumerate(count.split("|")):
        lines.append(words(x + 7, y + 28 + 13 * i, line, *((12, "start", BOLD) if i == 0 else (10.5,))))
    return f'<rect {place} fill="#f4f7fa" stroke="{FAINT}"/>' + "".join(lines)


def arrow(x: float, y: float) -> str:
    return f'<path d="M{x - 3.5:.1f} {y - 5:.1f}L{x + 3.5:.1f} {y - 5:.1f}L{x:.1f} {y:.1f}Z" fill="{AXIS}"/>'


def swatch(style: Style) -> str:
    """A short stroke for a legend."""
    stroke = segment(0, 5, 28, 5, style.colour, style.dash, style.width + 0.6)
    return f'<svg viewBox="0 0 28 10" aria-hidden="true">{stroke}</svg>'


def picture(content: str, size: tuple[int, int], title: str) -> str:
    """An SVG that scales to its place. `title` describes it."""
    head = f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{html.escape(title)}">'
    return f"{head}{content}</svg>"


def words(x: float, y: float, text: str, size: float, anchor: str = "start", extra: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}"{extra}'
    return f"<text {place}>{html.escape(text)}</text>"


def segment(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "", width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f"<line {ends} {pen_of(Style(colour, dash, width))}/>"


def dot(x: float, y: float, colour: str, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>'


def pen_of(style: Style) -> str:
    dashes = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return f'stroke="{style.colour}" stroke-width="{style.width:g}"{dashes} stroke-linejoin="round"'
