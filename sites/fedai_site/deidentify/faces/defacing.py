"""Taking a face off a volume of arrays, and making sure that it is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedai_site.deidentify.faces import picture, tissue
from fedai_site.deidentify.faces.findings import FaceFindings, NoFit, Outcome
from fedai_site.deidentify.faces.fitting import Head, find_head
from fedai_site.deidentify.faces.grid import Affine, Grid, Mask, Volume, sampled, to_grid
from fedai_site.deidentify.faces.template import depth_in_face, in_front, load_template
from fedai_site.quarantine import Quarantine, Reason

METHOD = "affine fit to a mean head (Mattes mutual information, 3 mm), face region removed outside the brain"
KEEP_FROM_BRAIN = 5.0  # mm around the template's brain that stay
KEEP_FROM_OWN = 3.0  # mm around the patient's own
CLEARANCE = 12.0  # mm between the field of view and the face from which on there is no face in it
MOST_LEFT = 0.01  # share of the middle of the face that may still be above the level of air (noise)
LEAST_MOVED = 8.0  # mm
NOSE_LEFT = 0.10


@dataclass(frozen=True)
class Face:
    """Where the face is: `field` > 0 on the grid is to be removed; the evidence so far; the head that it is
    of.
    """

    field: Grid
    head: Head
    findings: FaceFindings

    def mask(self, shape: tuple[int, ...], affine: Affine) -> Mask:
        """Which voxels of a volume of `shape` (z, y, x) and `affine` are to be replaced, (z, y, x) bool."""
        return np.asarray(sampled(self.field, shape, affine) > 0)

    def touched(self, mask: Mask, affine: Affine) -> int:
        """How many voxels of `mask` (as `mask` of a volume of `affine`) are brain."""
        index = np.stack(np.nonzero(mask)[::-1])
        at = affine[:3, :3] @ index + affine[:3, 3:]
        places = (at - self.head.grid.origin[:, None]) / self.head.grid.spacing
        brain = self.head.brain.astype(np.float32)
        return int((ndimage.map_coordinates(brain, places[::-1], order=1, mode="nearest") > 0.5).sum())


def deface(volume: NDArray[np.generic], affine: Affine, modality: str) -> tuple[Mask, FaceFindings]:
    """Which voxels of `volume` are to be replaced by air so that no face is left, and the evidence that
    none is.

    `volume`: (slices, rows, columns) of any number type; Hounsfield units for CT. `affine`: (4, 4) float64,
    takes (column, row, slice, 1) to LPS millimetres. `modality`: CT, MR or PT. The volume itself is not
    changed.

    Raises Quarantine(FACE_LEFT) with a rendering if it is not certain that the face is gone.
    """
    started = time.process_time()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise Quarantine(Reason.FACE_LEFT, "its geometry is not that of a volume")
    try:
        face = find_face(to_grid(volume, affine), modality)
        mask = face.mask(volume.shape, affine)
        cleared = to_grid(np.where(mask, air(volume, modality), volume), affine)
        touched = face.touched(mask, affine)
        findings = check(face, cleared, int(mask.sum()), touched)
    except NoFit as error:
        raise Quarantine(
            Reason.FACE_LEFT, str(error), picture_of(to_grid(volume, affine), modality)
        ) from None
    return mask, replace(findings, seconds=round(time.process_time() - started, 2))


def air(volume: NDArray[np.generic], modality: str) -> float:
    """What replaces the face: -1000 Hounsfield units, or for others the smallest value of the volume."""
    return tissue.AIR if modality == "CT" else float(volume.min())


def find_face(grid: Grid, modality: str) -> Face:
    """Fit the template and lay out what is to be removed. Raises NoFit."""
    if modality == "CT" and np.nanmin(grid.values) > tissue.SKIN:
        raise NoFit("there is no air in it, by its Hounsfield units")
    head = find_head(grid, modality)
    fit = head.fit
    findings = FaceFindings(
        method=METHOD,
        template=load_template().sha256[:12],
        outcome=Outcome.REMOVED,
        orientation=f"as stated {fit.own:.2f}, best other {fit.rival:.2f}",
        information=round(fit.information, 3),
        overlap=round(head.overlap, 3),
        brain_overlap=round(head.brain_overlap, 3),
        scales=tuple(round(scale, 3) for scale in fit.scales),
        tilt=round(fit.tilt, 1),
    )
    if _out_of_view(head):
        findings = replace(findings, outcome=Outcome.NOT_IN_VIEW)
        return Face(head.grid.like(np.full(head.body.shape, -1.0)), head, findings)
    return Face(_field(head), head, findings)


def _field(head: Head) -> Grid:
    """Millimetres inside what is to be removed, negative elsewhere: in the face and not near the brain."""
    depth = depth_in_face(head.places)
    from_own = ndimage.distance_transform_edt(~head.own_brain) * head.grid.spacing
    return head.grid.like(
        np.minimum(np.minimum(depth, head.from_brain - KEEP_FROM_BRAIN), from_own - KEEP_FROM_OWN)
    )


def _out_of_view(head: Head) -> bool:
    """Whether no voxel of the field of view is within CLEARANCE of the face."""
    near = head.grid.inside & (depth_in_face(head.places) > -CLEARANCE)
    x, y, _ = head.places
    return not (near & (y < -20) & (np.abs(x) < 90)).any()


def check(face: Face, cleared: Grid, changed: int, touched: int) -> FaceFindings:
    """Look at the volume after removal as if for the first time. Raises NoFit if a face could be left.

    `changed`, `touched`: how many voxels were replaced, and how many of those are brain.
    """
    if touched:
        raise NoFit(f"{touched} voxels of the brain would be changed")
    if face.findings.outcome is Outcome.NOT_IN_VIEW:
        return face.findings
    head = face.head
    after = _same_part(cleared, head.grid)
    left = np.nan_to_num(after, nan=-np.inf) > head.level
    block = in_front(head.places) & head.grid.inside
    if block.any() and left[block].mean() > MOST_LEFT:
        raise NoFit(f"{left[block].mean():.1%} of the middle of the face are still there")
    _check_nose(head, left)
    moved = _moved(head, left)
    if moved is not None and moved < LEAST_MOVED:
        raise NoFit(f"the surface of the face lies only {moved:.0f} mm further back")
    return replace(face.findings, voxels_changed=changed, moved=round(moved or 0.0, 1))


def _same_part(grid: Grid, like: Grid) -> Volume:
    """The upper part of `grid`, which `like` was cut from."""
    return grid.values[len(grid.values) - len(like.values) :]


def _check_nose(head: Head, left: Mask) -> None:
    """What sticks out of the front of the head, found without the template, must be gone."""
    x, y, z = head.places
    nose = (
        tissue.protrusions(head.body)
        & head.grid.inside
        & (y < -60)
        & (z < -20)
        & (z > -115)
        & (np.abs(x) < 40)
    )
    if nose.sum() > 40 and left[nose].mean() > NOSE_LEFT:
        raise NoFit(f"{left[nose].mean():.0%} of what sticks out of the face are still there")


def _moved(head: Head, left: Mask) -> float | None:
    """Millimetres by which 95% of the lines of sight onto the face go deeper; None if the face isn't in view.

    The lines run from front to back in the template's space, 3 mm apart, with a sample each millimetre.
    """
    x, z, y = (np.arange(*ends) for ends in ((-45.0, 46.0, 3.0), (-95.0, -31.0, 3.0), (-135.0, 30.0, 1.0)))
    lines = np.stack(np.meshgrid(x, y, z, indexing="ij"))
    at = np.tensordot(np.linalg.inv(head.fit.matrix)[:3], np.vstack([lines, np.ones_like(lines[:1])]), 1)
    index = ((at - head.grid.origin[:, None, None, None]) / head.grid.spacing)[::-1]
    before, after = (
        ndimage.map_coordinates(mask.astype(np.float32), index, order=0, cval=0.0) > 0.5
        for mask in (head.body, left & head.body)
    )
    first = np.where(before.any(axis=1), before.argmax(axis=1), len(y))
    seen = first < 75  # the skin is in front of y = -60
    if seen.sum() < 25:
        return None
    depth = np.where(after.any(axis=1), after.argmax(axis=1), len(y))
    return float(np.percentile((depth - first)[seen], 5) / np.mean(head.fit.scales))


def picture_of(grid: Grid, modality: str) -> bytes:
    """A PNG of the head's surface as it is, for a reviewer."""
    return picture.png(picture.render(grid, tissue.threshold(grid.values, modality)))
