"""Boxes are filled with a value that the pixels around them have: valid for any format, signed or palette."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedai_site.deidentify.pixels.boxes import Box, covered
from fedai_site.deidentify.pixels.frames import Stored

RING = 4
"""Pixels around a box whose values count as its background."""


def blanked(stored: Stored, boxes: Iterable[Box], colour: str, padding: int | None) -> Stored:
    """A copy of the frame with each box filled with one value; all else is bit-identical."""
    found = [_even(box) if colour == "YBR_FULL_422" else box for box in boxes]
    result = stored.copy()
    hidden = covered(found, (stored.shape[0], stored.shape[1]))
    for box in found:
        row0, col0, row1, col1 = box
        result[row0:row1, col0:col1] = background(stored, box, hidden, colour, padding)
    return result


def _even(box: Box) -> Box:
    """Whole pairs of columns: two pixels share their colour."""
    return box[0], box[1] // 2 * 2, box[2], -(-box[3] // 2) * 2


def background(
    stored: Stored, box: Box, hidden: NDArray[np.bool_], colour: str, padding: int | None
) -> NDArray[np.generic]:
    """The value that fills a box: the middle one of those around it, or the commonest one of a palette."""
    row0, col0, row1, col1 = box
    around = np.s_[max(0, row0 - RING) : row1 + RING, max(0, col0 - RING) : col1 + RING]
    values = stored[around][~hidden[around]]
    if not values.size:
        values = stored[~hidden]
    if not values.size:
        return np.zeros(stored.shape[2:], stored.dtype)
    if padding is not None and stored.ndim == 2 and (values != padding).any():
        values = values[values != padding]
    if stored.ndim == 2 and colour != "PALETTE COLOR":
        return np.asarray(np.sort(values)[values.size // 2])
    if stored.ndim == 2:
        kinds, counts = np.unique(values, return_counts=True)
        return np.asarray(kinds[counts.argmax()])
    brightness = values.astype(np.float64).sum(-1)
    return np.asarray(values[np.argsort(brightness, kind="stable")[len(values) // 2]])
