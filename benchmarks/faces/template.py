"""The recipe of sites/fedai_site/deidentify/faces/template.npz.

    pip download --no-deps pydeface==2.1.0; unzip it; pip install deepbet==1.0.2 (in its own environment)
    deepbet-cli ... mean_reg2mean.nii.gz -> BRAIN.nii.gz
    python -m benchmarks.faces.template pydeface/data/mean_reg2mean.nii.gz BRAIN.nii.gz

pydeface's template (the mean head of many adults, T1-weighted MR; MIT licence) is resampled to 3 mm in a
space whose axes and origin are those of MNI152 (mm, but LPS: x to the left, y to the back, z up). The brain
mask is what deepbet 1.0.2 (MIT licence) finds in it. The head's outline is a threshold. Nothing else goes
into the file.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

TARGET = Path(__file__).parents[2] / "sites/fedai_site/deidentify/faces/template.npz"
ORIGIN, SPACING, SIZE = (-99.0, -126.0, -132.0), 3.0, (67, 86, 80)
TO_TEMPLATE = (
    (0.877781085, 0.0730204141, 0.00668268296),
    (-0.0791707482, 0.917391433, 0.132165048),
    (-0.00349484563, -0.072738096, 0.832627678),
)  # MNI152 mm to pydeface's mm, both LPS: found once with an affine registration (Mattes mutual information)
SHIFT = (4.87599528, -16.7819374, -2.11605375)
SKIN = 45.0  # of the template's grey levels: between noise (below 10) and scalp (above 80)


def resample(image: sitk.Image, interpolator: int, outside: float) -> np.ndarray:
    """`image` in the space of the template, (z, y, x) float32."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([value for row in TO_TEMPLATE for value in row])
    transform.SetTranslation(SHIFT)
    image = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), 1.2)
    spacing = (SPACING,) * 3
    identity = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    moved = sitk.Resample(image, SIZE, transform, interpolator, ORIGIN, spacing, identity, outside)
    return sitk.GetArrayFromImage(moved)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of `mask`, without holes."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def main(template: str, brain: str) -> None:
    """Write the file and print its hash."""
    image = sitk.ReadImage(template)
    grey = resample(image, sitk.sitkLinear, -1.0)
    valid = ndimage.binary_erosion(grey >= 0, iterations=1, border_value=0)
    inside = resample(sitk.ReadImage(brain), sitk.sitkLinear, 0.0) > 0.4
    head = largest(ndimage.binary_opening(grey > SKIN))
    top = np.percentile(grey[valid], 99.5)
    np.savez_compressed(
        TARGET,
        grey=np.uint8(np.clip(grey / top, 0, 1) * 255),
        valid=np.packbits(valid),
        brain=np.packbits(largest(inside)),
        head=np.packbits(head),
        origin=np.float64(ORIGIN),
        spacing=np.float64(SPACING),
    )
    print(TARGET.name, TARGET.stat().st_size, sha256(TARGET.read_bytes()).hexdigest())
    print("from", sha256(Path(template).read_bytes()).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:3])
