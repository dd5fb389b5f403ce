"""Structure sets (RTSTRUCT, PS3.3 A.19): contours in mm in the patient's frame, drawn onto their images.

A pixel is inside where its centre is. Contours of one structure on one image are joined by even and odd, so
that a contour within another one is a hole. Of the words only the names that a person listed are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedai_site.deidentify.grids import Floats, Grid, check_frame
from fedai_site.quarantine import Quarantine, Reason

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
MOST_OFF_PLANE_MM = 0.5
FEWEST_POINTS = 3


@dataclass(frozen=True)
class Contour:
    """A closed contour, points float64 [N, 3] in mm; `image`: the original SOP Instance UID referred to;
    `roi`: its number in the set; `frame`: the Frame of Reference UID of that, as the original has it.
    """

    image: str
    roi: int
    structure: str
    frame: str
    points: Floats


def contours_of(original: Dataset, names: Mapping[str, str]) -> Iterator[Contour]:
    """All contours of listed structures. `names`: ROIName -> structure. Raises Quarantine."""
    structures = structures_of(original, names)
    frames = {
        int(roi.ROINumber): str(roi.get("ReferencedFrameOfReferenceUID") or "")
        for roi in original.get("StructureSetROISequence") or ()
    }
    for drawn in original.get("ROIContourSequence") or ():
        number = int(drawn.ReferencedROINumber)
        if number in structures:
            for contour in drawn.get("ContourSequence") or ():
                yield _contour(contour, number, structures[number], frames[number])


def structures_of(original: Dataset, names: Mapping[str, str]) -> dict[int, str]:
    """ROI number -> structure, of those that are listed."""
    return {
        int(roi.ROINumber): names[name]
        for roi in original.get("StructureSetROISequence") or ()
        if (name := str(roi.get("ROIName", "")).strip()) in names
    }


def _contour(contour: Dataset, roi: int, structure: str, frame: str) -> Contour:
    images = [str(one.ReferencedSOPInstanceUID) for one in contour.get("ContourImageSequence") or ()]
    if len(images) != 1:
        raise Quarantine(Reason.MASK_MISFIT, "a contour doesn't say which image it is of")
    if str(contour.get("ContourGeometricType", "")) != "CLOSED_PLANAR":
        raise Quarantine(Reason.MASK_MISFIT, "a contour isn't closed and planar")
    values = np.array([float(value) for value in contour.get("ContourData") or ()])
    if len(values) % 3 or len(values) < 3 * FEWEST_POINTS or not np.isfinite(values).all():
        raise Quarantine(Reason.MASK_MISFIT, "a contour has no area")
    return Contour(images[0], roi, structure, frame, values.reshape(-1, 3))


def draw(contour: Contour, grid: Grid, frame: str) -> NDArray[np.bool_]:
    """bool [rows, columns]: the pixels whose centres are inside. `frame`: of the contour, as a pseudonym.

    Raises Quarantine where the contour doesn't lie on its image.
    """
    check_frame(grid, frame)
    if grid.corner is None or grid.axes is None:
        raise Quarantine(Reason.MASK_MISFIT, "its image doesn't lie in space")
    from_corner = contour.points - grid.corner
    if np.abs(from_corner @ np.cross(*grid.axes)).max() > MOST_OFF_PLANE_MM:
        raise Quarantine(Reason.MASK_MISFIT, "a contour doesn't lie in its image's plane")
    columns = from_corner @ grid.axes[0] / grid.spacing[1]
    rows = from_corner @ grid.axes[1] / grid.spacing[0]
    outside = (rows.max() < 0, columns.max() < 0, rows.min() > grid.rows, columns.min() > grid.columns)
    if any(outside):
        raise Quarantine(Reason.MASK_MISFIT, "a contour lies beside its image")
    return inside(rows, columns, (grid.rows, grid.columns))


def inside(rows: Floats, columns: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixel centres (whole numbers) a closed polygon surrounds, by even and odd, bool `size`.

    On each row every edge that crosses it turns outside into inside from there on.
    """
    turns = np.zeros((size[0], size[1] + 1), np.int64)
    for one in range(len(rows)):
        two = (one + 1) % len(rows)
        low, high = sorted((rows[one], rows[two]))
        at = np.arange(max(0, int(np.ceil(low))), min(size[0], int(np.ceil(high))))
        if len(at):
            share = (at - rows[one]) / (rows[two] - rows[one])
            crossed = np.ceil(columns[one] + share * (columns[two] - columns[one]))
            np.add.at(turns, (at, np.clip(crossed, 0, size[1]).astype(np.int64)), 1)
    return np.asarray(turns.cumsum(axis=1)[:, :-1] % 2 == 1)
