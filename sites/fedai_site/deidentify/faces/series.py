"""A series of DICOM objects without its face: stacked, defaced, checked, written back where it changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom.dataset import Dataset

from fedai_site.deidentify.faces import anatomy
from fedai_site.deidentify.faces.anatomy import Part
from fedai_site.deidentify.faces.decoded import Changed, Pixels
from fedai_site.deidentify.faces.defacing import METHOD, Face, check, find_face, picture_of
from fedai_site.deidentify.faces.findings import FaceFindings, NoFit, Outcome
from fedai_site.deidentify.faces.grid import SPACING, Grid
from fedai_site.deidentify.faces.stacks import LEAST_SLICES, Stack, frames_of, stacks_of
from fedai_site.deidentify.faces.template import load_template
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine, Reason

AIRLESS = -500.0  # a CT whose darkest hundredth lies above isn't in Hounsfield units
UNKNOWN: tuple[type[Exception], ...] = (NoFit, Quarantine, *FAULTS)
RANK = (Outcome.NO_HEAD, Outcome.TOO_THIN, Outcome.NOT_IN_VIEW, Outcome.REMOVED)


@dataclass(frozen=True)
class Done:
    """What became of one stack: its findings, and new stored values that are not written yet."""

    stack: Stack
    findings: FaceFindings
    changed: Changed = field(default_factory=dict)


def deface_series(datasets: Sequence[Dataset]) -> FaceFindings:
    """Take the face off all objects of one series, in place, and say what was found.

    Only pixels of the face are replaced; others keep their stored values bit by bit. Objects whose face was
    removed, or was certainly never in view, get (0028,0302) Recognizable Visual Features = NO. One object
    or a few are left alone: no surface can be reconstructed from them, and nothing is claimed.

    Raises Quarantine(FACE_LEFT), with a picture where there is a volume, unless it is certain; then no data
    set has been changed. The order of `datasets` doesn't matter.
    """
    started = time.process_time()
    with silenced():
        try:
            findings = _deface([dataset for dataset in datasets if anatomy.may_show_head(dataset)])
        except NoFit as error:
            raise Quarantine(Reason.FACE_LEFT, str(error)) from None
        except FAULTS as error:
            raise Quarantine(
                Reason.FACE_LEFT, f"it can't be read as a volume: {type(error).__name__}"
            ) from None
    return replace(findings, seconds=round(time.process_time() - started, 2))


def shows_head(datasets: Sequence[Dataset]) -> bool:
    """Whether a series could show a head whose face can be reconstructed. False is certain, True is not."""
    items = [dataset for dataset in datasets if anatomy.may_show_head(dataset)]
    try:
        with silenced():
            pixels = _pixels(items)
            return any(_can_be_head(pixels, stack) for stack in _stacks(items))
    except UNKNOWN:
        return True


def _deface(items: Sequence[Dataset]) -> FaceFindings:
    part = _part(items)
    if any(anatomy.is_rendered(item) for item in items) and part is not Part.OTHER:
        raise NoFit("it holds pictures of a rendered surface")
    try:
        stacks = _stacks(items)
    except NoFit:
        if part is not Part.OTHER:
            raise
        return _nothing(Outcome.NO_HEAD)
    pixels = _pixels(items)
    work = [_done(pixels, stack, part) for stack in stacks]
    pixels.write({key: stored for done in work for key, stored in done.changed.items()})
    _mark(items, work)
    return _joined(
        [done.findings for done in work] or [_nothing(Outcome.TOO_THIN if items else Outcome.NO_HEAD)]
    )


def _stacks(items: Sequence[Dataset]) -> list[Stack]:
    """The stacks of a series; none where there are too few slices for any. Raises NoFit for what has no
    place.
    """
    if any("MOSAIC" in (item.get("ImageType") or []) for item in items):
        raise NoFit("its slices are tiles of one picture")
    placed = [(number, item) for number, item in enumerate(items) if not _is_scout(item)]
    if sum(max(1, int(item.get("NumberOfFrames") or 1)) for _, item in placed) < LEAST_SLICES:
        return []
    return stacks_of(frame for number, item in placed for frame in frames_of(number, item))


def _is_scout(item: Dataset) -> bool:
    """A CT's projection of the whole depth, which lies at no place along it."""
    return item.get("Modality") == "CT" and "LOCALIZER" in (item.get("ImageType") or [])


def _pixels(items: Sequence[Dataset]) -> Pixels:
    modality = str(items[0].get("Modality") or "").upper() if items else ""
    return Pixels(items, "CT" if modality in ("CT", "CBCT") else modality)


def _part(items: Sequence[Dataset]) -> Part:
    parts = {anatomy.part_of(item) for item in items}
    return Part.HEAD if Part.HEAD in parts else Part.OTHER if parts == {Part.OTHER} else Part.UNKNOWN


def _can_be_head(pixels: Pixels, stack: Stack) -> bool:
    """The cheap look: every COARSE mm a slice is enough."""
    if not stack.is_surface:
        return False
    positions, chosen = stack.positions, [stack.places[0][0]]
    for place, position in zip(stack.places, positions, strict=True):
        if position - chosen[-1].origin @ stack.first.normal >= anatomy.COARSE - 0.01:
            chosen.append(place[0])
    grid = pixels.grid(chosen, anatomy.COARSE)
    return anatomy.can_be_head(grid, _meaning(grid, pixels.modality))


def _meaning(grid: Grid, modality: str) -> str:
    """CT only if the values can be Hounsfield units."""
    airless = modality == "CT" and np.nanpercentile(grid.values, 1) > AIRLESS
    return "MR" if airless else modality


def _done(pixels: Pixels, stack: Stack, part: Part) -> Done:
    if not stack.is_surface:
        return Done(stack, _nothing(Outcome.TOO_THIN))
    if part is not Part.HEAD and not _can_be_head(pixels, stack):
        return Done(stack, _nothing(Outcome.NO_HEAD))
    grid = pixels.grid(stack.volume(0), SPACING)
    try:
        face = find_face(grid, _meaning(grid, pixels.modality))
        return _defaced(pixels, stack, face)
    except NoFit as error:
        if part is Part.OTHER and not error.head_like:
            return Done(stack, _nothing(Outcome.NO_HEAD))
        picture = picture_of(grid, _meaning(grid, pixels.modality))
        raise Quarantine(Reason.FACE_LEFT, str(error), picture) from None


def _defaced(pixels: Pixels, stack: Stack, face: Face) -> Done:
    """New values for all frames of the stack, whichever volume of it they belong to. Raises NoFit."""
    value, changed, count, touched = pixels.darkest(stack), {}, 0, 0
    for place in stack.places:
        first = place[0]
        affine = first.affine()
        mask = face.mask((1, first.rows, first.columns), affine)
        count += int(mask.sum()) * len(place)
        touched += face.touched(mask, affine)
        for frame in place:
            stored = pixels.replaced(frame, mask[0], value) if mask.any() else None
            if stored is not None:
                changed[frame.item, frame.number] = stored
    cleared = pixels.grid(stack.volume(0), SPACING, changed)
    return Done(stack, check(face, cleared, count, touched), changed)


def _mark(items: Sequence[Dataset], work: Sequence[Done]) -> None:
    """NO where every frame of an object belongs to a stack without a face."""
    claimed: dict[int, bool] = {}
    for done in work:
        for frame in done.stack.frames:
            claimed[frame.item] = claimed.get(frame.item, True) and done.findings.claims_no_face
    for number in (number for number, claim in claimed.items() if claim):
        items[number].RecognizableVisualFeatures = "NO"


def _nothing(outcome: Outcome) -> FaceFindings:
    return FaceFindings(METHOD, load_template().sha256[:12], outcome)


def _joined(found: Sequence[FaceFindings]) -> FaceFindings:
    """One for the series: that of the stack of which most was removed, with all voxels counted."""
    main = max(found, key=lambda one: (RANK.index(one.outcome), one.voxels_changed))
    return replace(main, voxels_changed=sum(one.voxels_changed for one in found))
