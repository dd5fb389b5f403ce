"""An object that outlines structures on images, SEG or RTSTRUCT: what it says of which image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pydicom.dataset import Dataset

from fedai_site.deidentify import contours, segments
from fedai_site.deidentify.contours import STRUCTURE_SET
from fedai_site.deidentify.grids import Grid
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.segments import SEGMENTATION, Mask, Outlined
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine, Reason

KINDS = {SEGMENTATION: "SEG", STRUCTURE_SET: "RTSTRUCT"}
OnImage = Callable[[str], Grid]
"""The grid of the clean image of an original SOP Instance UID. Raises Quarantine where there is none."""


def kind_of(original: Dataset) -> str:
    """SEG, RTSTRUCT, or '' for any other object."""
    with silenced():
        try:
            return KINDS.get(str(original.get("SOPClassUID", "")).strip(" \0"), "")
        except FAULTS:
            return ""


def outlines(
    original: Dataset, names: Mapping[str, str], grid_of: OnImage, mapped: Callable[[str], str]
) -> dict[str, Outlined]:
    """Original SOP Instance UID -> structure -> pixels, of the structures in `names` (their name there ->
    ours). `mapped` gives a UID's pseudonym. Raises Quarantine where anything doesn't fit.
    """
    read = _of_segments if kind_of(original) == "SEG" else _of_contours
    found: dict[str, Outlined] = {}
    with silenced():
        try:
            for image, structure, pixels in read(original, names, grid_of, mapped):
                found.setdefault(image, Outlined()).add(structure, pixels)
        except FAULTS as error:
            raise Quarantine(Reason.MASK_MISFIT, type(error).__name__) from None
    if not found:
        raise Quarantine(Reason.MASK_MISFIT, "nothing is drawn in it")
    return found


def spoken_of(original: Dataset, names: Mapping[str, str]) -> tuple[str, ...]:
    """The structures that it speaks of, drawn or not, sorted. Raises Quarantine."""
    read = segments.labels_of if kind_of(original) == "SEG" else contours.structures_of
    with silenced():
        try:
            return tuple(sorted(set(read(original, names).values())))
        except FAULTS as error:
            raise Quarantine(Reason.MASK_MISFIT, type(error).__name__) from None


Part = tuple[str, str, Mask]


def _of_segments(
    original: Dataset, names: Mapping[str, str], grid_of: OnImage, mapped: Callable[[str], str]
) -> Iterator[Part]:
    frame = str(original.get("FrameOfReferenceUID") or "")
    for part in segments.placed(original, names):
        segments.check(part, grid_of(part.image), mapped(frame) if frame else "")
        yield part.image, part.structure, part.pixels


def _of_contours(
    original: Dataset, names: Mapping[str, str], grid_of: OnImage, mapped: Callable[[str], str]
) -> Iterator[Part]:
    """Contours of one ROI on one image are joined before they are put beside those of others."""
    joined: dict[tuple[str, int, str], Mask] = {}
    for contour in contours.contours_of(original, names):
        frame = mapped(contour.frame) if contour.frame else ""
        pixels = contours.draw(contour, grid_of(contour.image), frame)
        key = contour.image, contour.roi, contour.structure
        joined[key] = joined[key] ^ pixels if key in joined else pixels
    for (image, _, structure), pixels in joined.items():
        yield image, structure, pixels
