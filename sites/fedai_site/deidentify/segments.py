"""DICOM segmentations (SEG, PS3.3 A.51): which pixels of which image are in which structure.

Of the words in them only the names that a person listed are looked at; no other text is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from fedai_site.deidentify.engine import transfer_syntax
from fedai_site.deidentify.grids import Floats, Grid, check_frame, check_place, numbers
from fedai_site.deidentify.reading import MAXIMUM_BYTES
from fedai_site.quarantine import Quarantine, Reason

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
HALF = 0.5  # of the largest value: from here on a pixel of a fractional segment is in it
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Placed:
    """A part of a mask and where it says it lies; `image`: the original SOP Instance UID referred to."""

    image: str
    structure: str
    pixels: Mask
    corner: Floats | None = None
    axes: Floats | None = None
    spacing: Floats | None = None


@dataclass
class Outlined:
    """What one file says of one image: structure -> pixels."""

    structures: dict[str, Mask] = field(default_factory=dict)

    def add(self, structure: str, pixels: Mask) -> None:
        """Raises Quarantine where another structure has one of the pixels."""
        for name, there in self.structures.items():
            if name != structure and (there & pixels).any():
                raise Quarantine(Reason.MASK_CONFLICT, "two structures have one pixel")
        before = self.structures.get(structure)
        self.structures[structure] = pixels if before is None else before | pixels


def placed(original: Dataset, names: Mapping[str, str]) -> Iterator[Placed]:
    """Every frame of a listed structure. `names`: SegmentLabel -> structure. Raises Quarantine."""
    kind = str(original.get("SegmentationType", ""))
    if kind not in ("BINARY", "FRACTIONAL"):
        raise Quarantine(Reason.MASK_MISFIT, "neither a binary nor a fractional segmentation")
    most = float(original.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1.0
    shared = _first(original, "SharedFunctionalGroupsSequence")
    _check_size(original)
    for number, structure, image, groups in _frames(original, labels_of(original, names)):
        stored = _stored(original, number)
        place, turn, measure = (
            _first(groups, name) or _first(shared, name)
            for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        yield Placed(
            image,
            structure,
            stored >= HALF * most,
            numbers(_value(place, "ImagePositionPatient"), 3),
            numbers(_value(turn, "ImageOrientationPatient"), 6),
            numbers(_value(measure, "PixelSpacing"), 2),
        )


def _check_size(original: Dataset) -> None:
    """Raise Quarantine for more pixels than are read in one piece, or, uncompressed, other than it says."""
    pixels = int(original.Rows) * int(original.Columns) * int(original.get("NumberOfFrames") or 1)
    if pixels > MAXIMUM_BYTES:
        raise Quarantine(Reason.TOO_LARGE)
    has_all = len(original.PixelData) >= -(-pixels * int(original.BitsAllocated) // 8)
    if pixels <= 0 or not (transfer_syntax(original).is_compressed or has_all):
        raise Quarantine(Reason.PIXEL_SIZE)


def _stored(original: Dataset, number: int) -> NDArray[np.uint8]:
    """The stored values of a frame. Of one bit each, frames follow each other without a gap, so that one may
    begin within a byte (PS3.5 8.1.1); read here, since pydicom 3.0 can't where it also ends within one.
    """
    if int(original.BitsAllocated) != 1:
        return np.asarray(pixel_array(original, index=number))
    rows, columns = int(original.Rows), int(original.Columns)
    start, end = number * rows * columns, (number + 1) * rows * columns
    packed = np.frombuffer(original.PixelData, np.uint8)[start // 8 : -(-end // 8)]
    bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: rows * columns]
    return bits.reshape(rows, columns)


def check(part: Placed, grid: Grid, frame: str) -> None:
    """Raise Quarantine where a frame doesn't fit onto its image. `frame`: of reference, as a pseudonym."""
    if part.pixels.shape != (grid.rows, grid.columns):
        raise Quarantine(Reason.MASK_MISFIT, "other rows or columns than its image")
    check_frame(grid, frame)
    check_place(grid, part.corner, part.axes, part.spacing)


def labels_of(original: Dataset, names: Mapping[str, str]) -> dict[int, str]:
    """Segment number -> structure, of those that are listed."""
    return {
        int(segment.SegmentNumber): names[label]
        for segment in original.get("SegmentSequence") or ()
        if (label := str(segment.get("SegmentLabel", "")).strip()) in names
    }


def _frames(original: Dataset, labels: Mapping[int, str]) -> Iterator[tuple[int, str, str, Dataset]]:
    """Number, structure, image and functional groups of each frame of a listed structure."""
    shared = _first(original, "SharedFunctionalGroupsSequence")
    frames = original.get("PerFrameFunctionalGroupsSequence") or ()
    if len(frames) != int(original.get("NumberOfFrames") or 1):
        raise Quarantine(Reason.MASK_MISFIT, "not as many frames as it says")
    for number, groups in enumerate(frames):
        item = _first(groups, "SegmentIdentificationSequence") or _first(
            shared, "SegmentIdentificationSequence"
        )
        segment = int(_value(item, "ReferencedSegmentNumber") or 0)
        if segment in labels:
            yield number, labels[segment], _image(original, groups, shared), groups


def _image(original: Dataset, groups: Dataset, shared: Dataset | None) -> str:
    """The one image that a frame was drawn on; of a segmentation of one image, that."""
    found = {
        str(source.ReferencedSOPInstanceUID)
        for place in (groups, shared)
        for derived in _items(place, "DerivationImageSequence")
        for source in _items(derived, "SourceImageSequence")
    } or {
        str(one.ReferencedSOPInstanceUID)
        for series in _items(original, "ReferencedSeriesSequence")
        for one in _items(series, "ReferencedInstanceSequence")
    }
    if len(found) != 1:
        raise Quarantine(Reason.MASK_MISFIT, "a frame doesn't say which image it is of")
    return found.pop()


def _items(place: Dataset | None, name: str) -> list[Dataset]:
    return list(place.get(name) or ()) if place is not None else []


def _first(place: Dataset | None, name: str) -> Dataset | None:
    items = _items(place, name)
    return items[0] if items else None


def _value(place: Dataset | None, name: str) -> Any:
    return place.get(name) if place is not None else None
