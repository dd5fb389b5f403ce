"""From a map of where text is to rectangles that cover it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1) in pixels; the ends are not part of it."""
SURE = 0.6
"""Chance that at least one cell of a group must reach."""
PERHAPS = 0.2
"""Chance from which a cell belongs to a group."""
LEAST_CELLS = 3
MARGIN = 0.25
"""Of the shorter side of a box, added on every side."""
LEAST_MARGIN, MOST_MARGIN = 3, 4
"""Pixels; cells."""
STRIP = 6
"""Pixels; less between a box and the edge of the picture belongs to the box: nothing could be read in it."""
FULL_ENOUGH = 0.55
"""Share of a rectangle that must be text; a rectangle with less is cut in two."""
SMALLEST_CUT = 4
"""Cells; no rectangle shorter than twice that is cut."""
GOES_ON = 0.025
"""Chance from which a cell beside the end of a line belongs to it: a part of it can be too faint for more."""
LONG = 1.5
"""A box so many times longer than wide is a line, which goes on at both ends."""
GAP = 14
"""Cells between parts of a line, at most and no more than its width."""
FURTHER, MOST_FURTHER = 0.5, 6
"""How far at least a line is taken to go on: share of its width; cells."""
EVERY = (0.0, np.inf)
"""Groups of cells of any thickness."""


def boxes_of(
    chance: NDArray[np.float32],
    cell: float,
    shape: tuple[int, int],
    grown: float = 1.0,
    sure: float = SURE,
    thick: tuple[float, float] = EVERY,
) -> list[Box]:
    """Rectangles over the groups of cells that hold text, with a margin (times `grown`), within the picture.

    `chance` is (rows, columns) of 0..1, one value for `cell` x `cell` pixels of a picture of `shape`. A group
    counts if one of its cells reaches `sure` and its shorter side, in cells, lies within `thick`.
    """
    labels, count = ndimage.label(chance >= PERHAPS, np.ones((3, 3), np.int8))
    if not count:
        return []
    index = range(1, count + 1)
    peaks = ndimage.maximum(chance, labels, index)
    sizes = ndimage.sum_labels(np.ones_like(chance), labels, index)
    found: list[Box] = []
    for number, place in enumerate(ndimage.find_objects(labels)):
        shorter = min(side.stop - side.start for side in place)
        if peaks[number] >= sure and sizes[number] >= LEAST_CELLS and thick[0] <= shorter <= thick[1]:
            top, left = place[0].start, place[1].start
            for row0, col0, row1, col1 in rectangles(labels[place] == number + 1):
                box = (top + row0, left + col0, top + row1, left + col1)
                found.append(_with_margin(_to_its_ends(chance, box), cell, shape, grown))
    return merged(found)


def _to_its_ends(chance: NDArray[np.float32], box: Box) -> Box:
    """The box of a line, in cells, up to where nothing beside it looks like text any more."""
    row0, col0, row1, col1 = box
    if row1 - row0 >= LONG * (col1 - col0):
        col0, row0, col1, row1 = _to_its_ends(chance.T, (col0, row0, col1, row1))
        return row0, col0, row1, col1
    width = row1 - row0
    if col1 - col0 < LONG * width:
        return box
    goes_on = chance[row0:row1].max(0) >= GOES_ON
    gap, further = min(GAP, width), min(MOST_FURTHER, round(FURTHER * width))
    start = col0 - _reach(goes_on[:col0][::-1], gap) - further
    end = col1 + _reach(goes_on[col1:], gap) + further
    return row0, max(0, start), row1, min(chance.shape[1], end)


def _reach(goes_on: NDArray[np.bool_], gap: int) -> int:
    """How far the line goes on, with less than `gap` cells between its parts."""
    places = np.flatnonzero(goes_on)
    steps = np.diff(places, prepend=-1)
    within = places[: int(np.argmax(steps > gap))] if (steps > gap).any() else places
    return int(within[-1]) + 1 if within.size else 0


def rectangles(mask: NDArray[np.bool_]) -> list[Box]:
    """Few rectangles, in cells, that cover the mask tightly: text along an edge or a slope isn't one big
    box.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    row0, row1, col0, col1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    inner = mask[row0:row1, col0:col1]
    height, width = inner.shape
    if inner.mean() >= FULL_ENOUGH or max(height, width) < 2 * SMALLEST_CUT:
        return [(row0, col0, row1, col1)]
    if height >= width:
        halves = [(0, 0, inner[: height // 2]), (height // 2, 0, inner[height // 2 :])]
    else:
        halves = [(0, 0, inner[:, : width // 2]), (0, width // 2, inner[:, width // 2 :])]
    return [
        (row0 + down + a, col0 + across + b, row0 + down + c, col0 + across + d)
        for down, across, half in halves
        for a, b, c, d in rectangles(half)
    ]


def _with_margin(box: Box, cell: float, shape: tuple[int, int], grown: float) -> Box:
    row0, col0, row1, col1 = (side * cell for side in box)
    margin = grown * max(LEAST_MARGIN, min(MARGIN * min(row1 - row0, col1 - col0), MOST_MARGIN * cell))
    top, left, bottom, right = row0 - margin, col0 - margin, row1 + margin, col1 + margin
    return (
        int(top) if top >= STRIP else 0,
        int(left) if left >= STRIP else 0,
        int(np.ceil(bottom)) if bottom <= shape[0] - STRIP else shape[0],
        int(np.ceil(right)) if right <= shape[1] - STRIP else shape[1],
    )


def merged(found: Iterable[Box]) -> list[Box]:
    """Sorted, without those that lie within another."""
    kept: list[Box] = []
    for box in sorted(set(found), key=lambda b: (-(b[2] - b[0]) * (b[3] - b[1]), b)):
        inside = any(b[0] <= box[0] and b[1] <= box[1] and b[2] >= box[2] and b[3] >= box[3] for b in kept)
        if not inside and box[0] < box[2] and box[1] < box[3]:
            kept.append(box)
    return sorted(kept)


def covered(found: Iterable[Box], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of the pixels under the boxes."""
    mask = np.zeros(shape, bool)
    for row0, col0, row1, col1 in found:
        mask[row0:row1, col0:col1] = True
    return mask
