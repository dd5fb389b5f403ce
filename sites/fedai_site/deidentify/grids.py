"""The pixel grid of an image in its patient's frame (PS3.3 C.7.6.2.1.1), and whether a mask fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedai_site.deidentify import reading
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine, Reason

Floats = NDArray[np.float64]
MOST_APART_MM = 0.1  # positions that count as one
MOST_TURNED = 1e-3  # of direction cosines
MOST_SCALED = 0.01  # of spacings


@dataclass(frozen=True)
class Grid:
    """Rows and columns, and mm between rows and between columns. `frame`: the Frame of Reference UID, '' if
    none is stated. `corner` [3]: the first pixel's centre, mm; `axes` [2, 3]: directions in which columns and
    rows are counted. Both None where the image doesn't lie in space, as a radiograph.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    frame: str
    corner: Floats | None
    axes: Floats | None


def grid_of(data: bytes) -> Grid:
    """Of a clean image, given as its file's bytes. Raises Quarantine for what no mask can be laid on."""
    with silenced():
        try:
            image = reading.read(data)
            if int(image.get("NumberOfFrames") or 1) != 1:
                raise Quarantine(Reason.MASK_MISFIT, "its image has several frames")
            return _grid(image)
        except FAULTS as error:
            raise Quarantine(Reason.MASK_MISFIT, type(error).__name__) from None


def _grid(image: Dataset) -> Grid:
    stated = image.get("PixelSpacing") or image.get("ImagerPixelSpacing")
    spacing = numbers(stated, 2)
    if spacing is None or not (spacing > 0).all():
        raise Quarantine(Reason.MASK_MISFIT, "its image has no pixel spacing")
    axes = numbers(image.get("ImageOrientationPatient"), 6)
    return Grid(
        int(image.Rows),
        int(image.Columns),
        (float(spacing[0]), float(spacing[1])),
        str(image.get("FrameOfReferenceUID") or ""),
        numbers(image.get("ImagePositionPatient"), 3),
        None if axes is None else axes.reshape(2, 3),
    )


def numbers(value: Any, count: int) -> Floats | None:
    """So many finite numbers, None for anything else."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    found = np.array([float(one) for one in value])
    return found if np.isfinite(found).all() else None


def check_frame(grid: Grid, frame: str) -> None:
    """Raise Quarantine where a mask is in another frame of reference (a pseudonym) than its image."""
    if frame and grid.frame and frame != grid.frame:
        raise Quarantine(Reason.MASK_MISFIT, "another frame of reference than its image's")


def check_place(grid: Grid, corner: Floats | None, axes: Floats | None, spacing: Floats | None) -> None:
    """Raise Quarantine where a mask's own grid, as far as it states one, isn't its image's."""
    pairs = (
        ("position", corner, grid.corner, MOST_APART_MM),
        ("orientation", None if axes is None else axes.reshape(2, 3), grid.axes, MOST_TURNED),
    )
    for name, own, of_image, most in pairs:
        if own is not None and of_image is not None and np.abs(own - of_image).max() > most:
            raise Quarantine(Reason.MASK_MISFIT, f"another {name} than its image's")
    if spacing is not None and np.abs(spacing / np.array(grid.spacing) - 1).max() > MOST_SCALED:
        raise Quarantine(Reason.MASK_MISFIT, "another pixel spacing than its image's")
