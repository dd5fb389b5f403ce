"""From a volume to a head that is known to lie as its header says, or to a refusal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fedai_site.deidentify.faces import tissue
from fedai_site.deidentify.faces.findings import NoFit
from fedai_site.deidentify.faces.grid import Grid, Mask, Volume
from fedai_site.deidentify.faces.registration import Fit, Registration, register
from fedai_site.deidentify.faces.template import Points, Template, depth_in_face, load_template

MIDDLE_OF_HEAD = np.array([0.0, 16.0, -10.0])  # of the template; and of its upper and lower parts:
UPPER, LOWER = np.array([0.0, 16.0, 45.0]), np.array([0.0, 5.0, -50.0])
HEAD_HEIGHT = 250.0  # mm from crown to chin, generously
LEAST_INFORMATION = 0.25
LIKE_A_HEAD = 0.35
LEAST_LEAD = 0.08  # of the stated orientation over all others
LEAST_OVERLAP = 0.92
LEAST_BRAIN_OVERLAP = 0.80
LEAST_BRAIN_SEEN = 0.25
STRETCH = (0.80, 1.90)  # the template is larger than most heads; a newborn's needs 1.7
STRETCH_RATIO = 1.45
STEEPEST = 55.0  # degrees
IMPLAUSIBLE = 8.0  # mm deep in the face: what looks like brain there is not
MOST_CONFLICT = 6.0  # ml


@dataclass(frozen=True)
class Head:
    """A volume's coarse grid with its head, fitted: everything is (z, y, x) on the grid.

    `level` parts tissue from air. `places`: the template's millimetres of every voxel, (3, z, y, x).
    `from_brain`: mm from the template's brain. `own_brain`: the patient's own, as far as it can be told;
    not what is deep in the face. `conflict`: milliseen that look like brain and are deep in the face.
    """

    grid: Grid
    modality: str
    level: float
    body: Mask
    fit: Fit
    places: Points
    from_brain: Volume
    own_brain: Mask
    conflict: float
    overlap: float
    brain_overlap: float

    @property
    def brain(self) -> Mask:
        """Where no voxel may change."""
        return (self.from_brain < 0) | self.own_brain


def find_head(grid: Grid, modality: str) -> Head:
    """Fit `grid` to the template. Raises NoFit unless all checks hold."""
    template = load_template()
    cut = _upper_part(grid, tissue.threshold(grid.values, modality))
    level = tissue.threshold(cut.values, modality)
    body = tissue.head_mask(cut, level)
    if body.sum() < 5000:  # 0.13 seen
        raise NoFit("no head-sized body in it")
    around = ndimage.binary_dilation(body, iterations=4) & cut.inside
    registration = Registration(tissue.normalised(cut, level, modality), around, template)
    fit = register(registration, _starts(cut, body))
    try:
        _check_fit(fit)
        head = _head(cut, modality, level, body, fit, template)
        _check_head(head, template)
    except NoFit as error:
        clear = abs(fit.own - fit.rival) >= LEAST_LEAD and max(fit.own, fit.rival) >= LIKE_A_HEAD
        raise NoFit(str(error), head_like=clear) from None
    return head


def _upper_part(grid: Grid, level: float) -> Grid:
    """The grid from HEAD_HEIGHT below the top of the body upwards: a neck or a trunk would draw the fit
    away.
    """
    if len(grid.values) * grid.spacing <= HEAD_HEIGHT:
        return grid
    occupied = np.nonzero(tissue.head_mask(grid, level).sum(axis=(1, 2)) > 40)[0]
    top = int(occupied[-1]) + 1 if len(occupied) else len(grid.values)
    bottom = max(0, top - int(HEAD_HEIGHT / grid.spacing))
    values = grid.values[bottom:]
    return Grid(values, grid.origin + np.array([0, 0, bottom * grid.spacing]), grid.spacing)


def _starts(grid: Grid, body: Mask) -> list[tuple[Points, Points]]:
    """Middle on middle, and for what is lower than a whole head also as its upper or lower part."""
    center = grid.points()[:, body].mean(axis=1)
    starts = [(center, MIDDLE_OF_HEAD)]
    if len(grid.values) * grid.spacing < 120:
        starts += [(center, UPPER), (center, LOWER)]
    return starts


def _check_fit(fit: Fit) -> None:
    scales = fit.scales
    if fit.information < LEAST_INFORMATION or fit.own - fit.rival < LEAST_LEAD:
        raise NoFit(
            "it is not certain which way the head lies: "
            f"as stated {fit.own:.2f}, otherwise {fit.rival:.2f} (mutual information)"
        )
    if np.linalg.det(fit.matrix[:3, :3]) <= 0 or fit.tilt > STEEPEST:
        raise NoFit(f"the head is turned by {fit.tilt:.0f} degrees")
    if not STRETCH[0] <= scales[2] <= scales[0] <= STRETCH[1] or scales[0] > scales[2] * STRETCH_RATIO:
        raise NoFit(f"the head would have to be stretched by {scales[0]:.2f} and {scales[2]:.2f}")


def _head(grid: Grid, modality: str, level: float, body: Mask, fit: Fit, template: Template) -> Head:
    places = fit.to_template(grid.points())
    from_brain = template.at(template.from_brain, places, 99.0) / float(np.mean(fit.scales))
    found = tissue.own_brain(grid.values, from_brain, modality)
    own = found & (depth_in_face(places) < IMPLAUSIBLE)
    conflict = float((found & ~own & (from_brain > 3)).sum()) * grid.spacing**3 / 1000
    known = grid.inside & (template.at(template.valid, places, 0.0) > 0.5) & (depth_in_face(places) < 0)
    outline = template.at(template.head, places, 0.0) > 0.5
    overlap = _dice(body & known, outline & known)
    brain_overlap = _dice(own, (from_brain < 0) & grid.inside)
    return Head(grid, modality, level, body, fit, places, from_brain, own, conflict, overlap, brain_overlap)


def _check_head(head: Head, template: Template) -> None:
    if head.overlap < LEAST_OVERLAP:
        raise NoFit(f"the outline of the head fits by {head.overlap:.2f} only")
    if head.brain_overlap < LEAST_BRAIN_OVERLAP:
        raise NoFit(f"the brain fits by {head.brain_overlap:.2f} only")
    if head.conflict > MOST_CONFLICT:
        raise NoFit(f"{head.conflict:.0f} ml of what is to be removed look like brain")
    seen = float(((head.from_brain < 0) & head.grid.inside).sum()) * head.grid.spacing**3
    whole = float(template.brain.sum()) * head.grid.spacing**3 / float(np.prod(head.fit.scales))
    if seen < LEAST_BRAIN_SEEN * whole:
        raise NoFit(f"only {seen / whole:.0%} of the brain are in view")


def _dice(first: Mask, second: Mask) -> float:
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0
