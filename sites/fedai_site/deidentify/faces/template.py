"""The mean head that every head is compared with, and where its face, ears and brain are.

Its space ("the template's millimetres") has the axes and the origin of MNI152, but in DICOM's sense: x to
the left, y to the back, z to the crown. template.npz is made from pydeface's template; see NOTICE for its
source and licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedai_site.deidentify.faces.grid import SPACING, Mask, Volume

FILE = Path(__file__).with_name("template.npz")
Points = NDArray[np.float64]  # (3, ...): x, y, z in millimetres


@dataclass(frozen=True)
class Template:
    """Mean T1 image (0 to 255), where it is valid, the head's outline, and the distance to the brain.

    All (z, y, x), SPACING mm apart, from `origin`. `from_brain` is in mm, negative inside the brain.
    """

    grey: Volume
    valid: Mask
    head: Mask
    brain: Mask
    from_brain: Volume
    origin: NDArray[np.float64]
    sha256: str

    def at(self, values: NDArray[np.generic], points: Points, outside: float) -> Volume:
        """`values` of this template at `points` in its millimetres, interpolated linearly."""
        index = (points - self.origin.reshape(3, *[1] * (points.ndim - 1))) / SPACING
        result: Volume = ndimage.map_coordinates(
            np.asarray(values, np.float32),
            index[::-1],
            order=1,
            mode="constant",
            cval=outside,
            prefilter=False,
        )
        return result


@cache
def load_template() -> Template:
    """The template, read once per process."""
    data = FILE.read_bytes()
    with np.load(FILE, allow_pickle=False) as arrays:
        grey = arrays["grey"].astype(np.float32)
        valid, head, brain = (_unpacked(arrays[name], grey.shape) for name in ("valid", "head", "brain"))
        origin = arrays["origin"]
    outer = ndimage.distance_transform_edt(~brain) * SPACING
    inner = ndimage.distance_transform_edt(brain) * SPACING
    return Template(
        grey, valid, head, brain, np.asarray(outer - inner, np.float32), origin, sha256(data).hexdigest()
    )


def _unpacked(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> Mask:
    return np.unpackbits(bits)[: np.prod(shape)].reshape(shape).astype(bool)


def depth_in_face(points: Points) -> Volume:
    """How deep `points` (3, ...) lie in what is to be removed, in mm of the template; negative outside.

    Read off the template: eyes are centred at (+-33, -60, -36) with radius 13, the brow is at y -85, z -22,
    the tip of the nose at (0, -98, -76), the mouth at z -95, the chin at about z -125; the orbits end
    behind y -45 and the temporal lobes begin at y -32. Nothing bounds the region in front: a longer nose
    goes as well.
    """
    x, y, z = points
    brow = -22.0 + 0.22 * np.minimum(-60.0 - y, 60.0)  # rises towards the front, over the brow
    upper = np.minimum(brow - z, -44.0 - y)
    middle = np.minimum(-50.0 - z, -30.0 - y)
    lower = np.minimum(-72.0 - z, -16.0 - y)
    face = np.minimum(np.maximum(np.maximum(upper, middle), lower), z + 150.0)
    side = np.minimum(np.minimum(np.abs(x) - 79.0, y + 2.0), 66.0 - y)
    ears = np.minimum(np.minimum(side, z + 84.0), -4.0 - z)
    return np.asarray(np.maximum(face, ears), np.float32)


def in_front(points: Points) -> Mask:
    """The middle of the face from brow to upper lip as a block of air and skin that must be empty
    afterwards.
    """
    x, y, z = points
    return np.asarray((np.abs(x) < 48) & (y < -62) & (z < -32) & (z > -100))
