"""Fitting a head to the template: Mattes mutual information over affine transforms, in three levels, from
several starts.

Mattes et al., IEEE TMI 22 (2003) 120-128, as in SimpleITK. The same input gives the same fit: one thread,
regular sampling, a fixed seed.

A volume whose header lies about front and back or up and down fits the template better after a turn or a
mirroring. So all 24 ways to lay the axes are tried (left and right look alike, and are left out), and the
stated one must win clearly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fedai_site.deidentify.faces.findings import NoFit
from fedai_site.deidentify.faces.grid import SPACING, Affine, Grid, Mask
from fedai_site.deidentify.faces.template import Points, Template

SEED = 7
BINS = 32
TURNS = ((0, 0, 0), (-28, 0, 0), (28, 0, 0), (0, -24, 0), (0, 24, 0), (0, 0, -24), (0, 0, 24))
"""Degrees about x, y, z to start from: a chin on the chest or a tilted gantry, a head on its shoulder,
turned aside.
"""
FAILED = 0.0


@dataclass(frozen=True)
class Level:
    """One level of a registration: shrinking, smoothing (mm), iterations, share of voxels, steps (mm)."""

    shrink: int
    sigma: float
    iterations: int
    share: float
    step: float
    smallest: float


COARSE = Level(4, 2.0, 40, 1.0, 4.0, 0.05)
QUICK = Level(4, 2.0, 25, 1.0, 4.0, 0.05)  # for what only has to be found not to fit
MIDDLE = Level(2, 1.0, 80, 1.0, 2.0, 0.03)
FINE = Level(1, 0.0, 80, 0.3, 1.0, 0.03)
PASSES = 3  # more FINE levels as long as they gain ENOUGH
ENOUGH = 0.003


@dataclass(frozen=True)
class Fit:
    """`matrix` (4, 4) takes patient millimetres to the template's; `information` is the mutual information
    (nats).

    `rival`: the best that any other orientation reached at the middle level; `own` is what this one reached
    there.
    """

    matrix: Affine
    information: float
    own: float
    rival: float

    @property
    def scales(self) -> tuple[float, float, float]:
        """Stretching along the three principal axes, largest first."""
        return tuple(np.linalg.svd(self.matrix[:3, :3])[1].tolist())

    @property
    def tilt(self) -> float:
        """Angle in degrees by which the head is turned against the stated axes."""
        left, _, right = np.linalg.svd(self.matrix[:3, :3])
        cosine = (np.trace(left @ right) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    def to_template(self, points: Points) -> Points:
        """`points` (3, ...) of the patient in the template's millimetres."""
        moved = np.tensordot(self.matrix[:3, :3], points, 1)
        return np.asarray(moved + self.matrix[:3, 3].reshape(3, *[1] * (points.ndim - 1)))


class Registration:
    """One head (`grid`, compared where `where` is true) against the template."""

    def __init__(self, grid: Grid, where: Mask, template: Template) -> None:
        self.itk: Any = _simple_itk()
        self.itk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        self.where = self._image(where.astype(np.uint8), grid.origin)
        self.valid = self._image(template.valid.astype(np.uint8), template.origin)
        fixed = self._image(np.nan_to_num(grid.values), grid.origin)
        moving = self._image(template.grey, template.origin)
        self.pairs = {level: self._smoothed(fixed, moving, level) for level in (COARSE, QUICK, MIDDLE, FINE)}

    def _smoothed(self, fixed: Any, moving: Any, level: Level) -> tuple[Any, Any]:
        """Patient and template as a level compares them: smoothed and shrunk."""
        if level.sigma:
            fixed, moving = (
                self.itk.SmoothingRecursiveGaussian(image, level.sigma) for image in (fixed, moving)
            )
        return self.itk.Shrink(fixed, [level.shrink] * 3), self.itk.Shrink(
            moving, [-(-level.shrink // 2)] * 3
        )

    def _image(self, values: NDArray[Any], origin: NDArray[np.float64]) -> Any:
        image = self.itk.GetImageFromArray(values)
        image.SetOrigin(origin.tolist())
        image.SetSpacing((SPACING,) * 3)
        return image

    def turned(self, turn: NDArray[np.float64], center: Points, onto: Points) -> Any:
        """A similarity (7 parameters) that turns about `center` (patient) and lays it onto `onto`
        (template).
        """
        transform = self.itk.Similarity3DTransform()
        transform.SetCenter(center.tolist())
        transform.SetMatrix(turn.ravel().tolist(), 1e-6)
        transform.SetTranslation((onto - center).tolist())
        return transform

    def affine(self, matrix: NDArray[np.float64], center: Points, onto: Points) -> Any:
        """An affine transform (12 parameters) with `matrix` (3, 3) that lays `center` onto `onto`."""
        transform = self.itk.AffineTransform(3)
        transform.SetCenter(center.tolist())
        transform.SetMatrix(matrix.ravel().tolist())
        transform.SetTranslation((onto - center).tolist())
        return transform

    def refined(self, transform: Any, level: Level) -> tuple[float, Any]:
        """(mutual information, transform) after one level. Information is FAILED where the two don't
        overlap.
        """
        method = self.itk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.REGULAR if level.share < 1 else method.NONE)
        method.SetMetricSamplingPercentage(level.share, SEED)
        method.SetMetricFixedMask(self.where)
        method.SetMetricMovingMask(self.valid)
        method.SetInterpolator(self.itk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(level.step, level.smallest, level.iterations, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        moved = type(transform)(transform)
        method.SetInitialTransform(moved, inPlace=True)
        try:
            method.Execute(*self.pairs[level])
        except RuntimeError:  # "all samples map outside the moving image": not a fit
            return FAILED, transform
        return -float(method.GetMetricValue()), moved


def _simple_itk() -> Any:
    """SimpleITK, imported when it's first needed. Raises NoFit if it isn't installed."""
    try:
        import SimpleITK
    except ImportError:
        raise NoFit("SimpleITK isn't installed: it comes with the extra 'faces'") from None
    return SimpleITK


def register(registration: Registration, starts: list[tuple[Points, Points]]) -> Fit:
    """The best fit of the stated orientation, and how well the best of the other orientations fits.

    `starts`: pairs of a point in the patient (LPS mm) and one in the template that it may lie on. A
    similarity comes first, from every start and turn; the affine transform begins where it ended, since it
    alone can collapse.
    """
    turned = [registration.turned(_rotation(turn), center, onto) for center, onto in starts for turn in TURNS]
    coarse = _best([registration.refined(start, COARSE) for start in turned])
    middle = _best([registration.refined(found, MIDDLE) for _, found in coarse[:3]])
    fine = _best([registration.refined(_as_affine(registration, found), FINE) for _, found in middle[:2]])
    information, transform = _polished(registration, *fine[0])
    own, _ = registration.refined(transform, MIDDLE)
    rivals = _best(
        [registration.refined(start, QUICK) for start in _rivals(registration, transform, starts[0])]
    )
    rival = max(registration.refined(found, MIDDLE)[0] for _, found in rivals[:3])
    return Fit(_matrix(transform), information, max(own, middle[0][0]), rival)


def _polished(registration: Registration, information: float, transform: Any) -> tuple[float, Any]:
    for _ in range(PASSES):
        better, moved = registration.refined(transform, FINE)
        gained = better - information
        if gained > 0:
            information, transform = better, moved
        if gained < ENOUGH:
            break
    return information, transform


def _as_affine(registration: Registration, similarity: Any) -> Any:
    center = np.array(similarity.GetCenter())
    matrix = np.reshape(similarity.GetMatrix(), (3, 3))
    return registration.affine(matrix, center, center + np.array(similarity.GetTranslation()))


def _best(found: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    return sorted(found, key=lambda pair: -pair[0])


def _rivals(registration: Registration, fitted: Any, start: tuple[Points, Points]) -> Iterator[Any]:
    """The other 23 orientations, each from the fitted transform and, should that be wrong, from `start`."""
    matrix = _matrix(fitted)
    middle = np.array([0.0, 16.0, -5.0])
    center = np.linalg.solve(matrix[:3, :3], middle - matrix[:3, 3])
    for turn in _orientations()[1:]:
        yield registration.affine(np.asarray(turn @ matrix[:3, :3]), np.asarray(center), middle)
        yield registration.affine(np.asarray(turn), *start)


def _orientations() -> list[NDArray[np.float64]]:
    """The stated orientation first, then the other 23: permuted and mirrored axes, left and right not told
    apart.
    """
    found = []
    for order, (second, third) in product(permutations(range(3)), product((1.0, -1.0), repeat=2)):
        turn = np.zeros((3, 3))
        turn[range(3), order] = (1.0, second, third)
        found.append(turn)
    return found


def _rotation(degrees: tuple[int, int, int]) -> NDArray[np.float64]:
    """Rotation by `degrees` about x, y and z."""
    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


def _matrix(transform: Any) -> Affine:
    """A SimpleITK affine transform as (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    center = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + center - matrix[:3, :3] @ center
    return matrix
