"""How well an outline agrees with the reference: overlap, and distances of their edges in mm, case by case.

Of a structure that neither outlines there is nothing to measure: its case is undefined and only counted.
Where one alone outlines it, Dice and NSD are 0, HD95 is undefined, and the area error is the whole area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt

from fedai.metrics import Floats, Integers

MEASURES = ("dice", "nsd", "hd95_mm", "area_error_mm2")
FOUND = ("neither", "model_alone", "reference_alone", "both")
Mask = npt.NDArray[np.bool_]


def measure(
    references: npt.NDArray[np.uint8],
    outlines: npt.NDArray[np.uint8],
    structures: int,
    spacing: Floats,
    tolerance_mm: float,
) -> tuple[Floats, Integers]:
    """Of masks uint8 [N, rows, columns] of both, with structures as 1, 2 ... and `spacing` in mm, float64
    [N, 2]: values float64 [N, structures, MEASURES], NaN where undefined, and which of FOUND, int64
    [N, structures].
    """
    values = np.full((len(references), structures, len(MEASURES)), np.nan)
    found = np.zeros((len(references), structures), np.int64)
    for n, s in np.ndindex(*found.shape):
        reference, outline = references[n] == s + 1, outlines[n] == s + 1
        found[n, s] = 2 * reference.any() + outline.any()
        if found[n, s]:
            values[n, s] = _values(reference, outline, spacing[n], tolerance_mm)
    return values, found


def _values(reference: Mask, outline: Mask, spacing: Floats, tolerance_mm: float) -> list[float]:
    """Of two masks of which one at least has a pixel, in the order of MEASURES."""
    rows, columns = (np.flatnonzero((reference | outline).any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    sizes = int(reference.sum()), int(outline.sum())
    dice = 2 * int((reference & outline).sum()) / sum(sizes)
    error = (sizes[1] - sizes[0]) * float(spacing.prod())
    if not all(sizes):
        return [0.0, 0.0, np.nan, error]
    apart = edge_distances(reference[box], outline[box], spacing)
    near = sum(int((distances <= tolerance_mm).sum()) for distances in apart)
    nsd = near / sum(map(len, apart))
    return [dice, nsd, max(float(np.percentile(distances, 95)) for distances in apart), error]


def edge_distances(one: Mask, other: Mask, spacing: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    """From each edge pixel of either mask to the nearest of the other's, mm; edge pixels are those that an
    erosion takes. Both masks have a pixel.
    """
    edges = [np.pad(mask, 1) & ~binary_erosion(np.pad(mask, 1)) for mask in (one, other)]
    to = [cast(Floats, distance_transform_edt(~edge, sampling=spacing)) for edge in edges]
    return to[1][edges[0]], to[0][edges[1]]
