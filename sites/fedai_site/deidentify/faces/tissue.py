"""What in a volume is head, and what is brain: thresholds and shapes on the coarse grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedai_site.deidentify.faces.grid import SPACING, Grid, Mask, Volume

SKIN = -250.0  # Hounsfield units: above air, hair, foam and most of a pillow; below fat
BONE = 220.0
CT_WINDOW = (-200.0, 200.0)
AIR = -1000.0
REACH = 9.0  # mm that a patient's own brain may lie outside of the template's


def threshold(values: Volume, modality: str) -> float:
    """The value that parts tissue from air. MR and PT: half of Otsu's threshold (IEEE SMC 9 (1979) 62-66)."""
    if modality == "CT":
        return SKIN
    known = values[np.isfinite(values)]
    if known.size == 0 or known.min() == known.max():
        return np.inf
    return float(known.min() + (_otsu(known) - known.min()) * 0.5)


def _otsu(values: Volume) -> float:
    counts, edges = np.histogram(np.minimum(values, np.percentile(values, 99)), 128)
    middles = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above = counts.sum() - below
    total = float((counts * middles).sum())
    between = (total * below - mass * counts.sum()) ** 2 / np.maximum(below * above, 1)
    return float(edges[int(between.argmax()) + 1])


def head_mask(grid: Grid, level: float) -> Mask:
    """The largest connected body of tissue above `level`, filled; tables and head holders fall off."""
    tissue = np.nan_to_num(grid.values, nan=-np.inf) > level
    body = largest(ndimage.binary_opening(tissue, iterations=1))
    if not body.any():
        return body
    body = ndimage.binary_dilation(body, mask=tissue)
    return closed(body, 3)


def closed(mask: Mask, steps: int) -> Mask:
    """Closed by `steps` voxels and filled, slice by slice too; the edges of the volume count as more of the
    same.
    """
    wide = np.pad(mask, steps, mode="edge")
    wide = ndimage.binary_closing(wide, iterations=steps)[steps:-steps, steps:-steps, steps:-steps] | mask
    filled = ndimage.binary_fill_holes(wide)
    for z in range(len(filled)):
        filled[z] = ndimage.binary_fill_holes(filled[z])
    return np.asarray(filled)


def largest(mask: Mask) -> Mask:
    """The largest part of `mask` that hangs together."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def normalised(grid: Grid, level: float, modality: str) -> Grid:
    """Values as they are compared: CT in a window of soft tissue, others up to their 99.5th percentile."""
    if modality == "CT":
        return grid.like(np.clip(np.nan_to_num(grid.values, nan=AIR), *CT_WINDOW))
    known = grid.values[np.isfinite(grid.values)]
    low, high = known.min(), np.percentile(known[known > level], 99.5)
    return grid.like(np.clip(np.nan_to_num(grid.values, nan=low), low, high))


def own_brain(values: Volume, from_brain: Volume, modality: str) -> Mask:
    """The patient's own brain: what looks like the core of it, hangs together, and is not far from the
    template's.

    `from_brain`: mm from the template's brain as fitted, negative inside.
    """
    core = (from_brain < -9.0) & np.isfinite(values)
    if not core.any():
        return core
    low, high = _range(values[core], modality)
    near = (
        (from_brain < REACH) & (np.nan_to_num(values, nan=low - 1) >= low) & (np.nan_to_num(values) <= high)
    )
    opened = ndimage.binary_opening(np.pad(near, 2, mode="edge"), iterations=2)[2:-2, 2:-2, 2:-2]
    labels, _ = ndimage.label(opened)
    touched = np.unique(labels[core & (labels > 0)])
    return np.asarray(np.isin(labels, touched[touched > 0]))


def _range(core: Volume, modality: str) -> tuple[float, float]:
    if modality == "CT":
        return -5.0, 110.0
    low, high = np.percentile(core, [3, 97])
    spread = high - low
    return float(low - 0.15 * spread), float(high + 0.15 * spread)


def protrusions(head: Mask, radius: float = 15.0) -> Mask:
    """Parts of the head that no ball of `radius` mm fits into: the nose, the ears, the chin."""
    steps = int(np.ceil(radius / SPACING)) + 1
    wide: NDArray[np.bool_] = np.pad(head, steps, mode="edge")
    core = ndimage.distance_transform_edt(wide) * SPACING > radius
    near = ndimage.distance_transform_edt(~core) * SPACING <= radius
    return np.asarray(head & ~near[steps:-steps, steps:-steps, steps:-steps])
