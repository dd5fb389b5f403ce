"""Volumes in patient space: what is found is found on a coarse grid along the patient's axes, and carried
back.

All arrays are (slices, rows, columns) = (z, y, x). An affine maps (column, row, slice, 1) to millimetres in
DICOM's patient coordinates (LPS: x to the left, y to the back, z to the head; PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]
SPACING = 3.0  # mm of the working grid


@dataclass(frozen=True)
class Grid:
    """A volume along the patient's axes: `values` (z, y, x) float32, NaN outside the field of view.

    `origin`: LPS millimetres of voxel (0, 0, 0); `spacing`: millimetres from voxel to voxel, along each axis.
    """

    values: Volume
    origin: NDArray[np.float64]
    spacing: float = SPACING

    @property
    def inside(self) -> Mask:
        """Where the field of view is."""
        return np.isfinite(self.values)

    def points(self) -> NDArray[np.float64]:
        """LPS millimetres of every voxel, (3, z, y, x), x first."""
        z, y, x = (np.arange(count) * self.spacing for count in self.values.shape)
        at = np.stack(np.meshgrid(z, y, x, indexing="ij"))[::-1]
        return np.asarray(at + self.origin[:, None, None, None])

    def like(self, values: NDArray[np.generic]) -> Grid:
        """Another volume on the same voxels."""
        return Grid(np.asarray(values, np.float32), self.origin, self.spacing)


def voxel_sizes(affine: Affine) -> NDArray[np.float64]:
    """Millimetres from one column, row, slice to the next, (3,)."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def to_grid(volume: NDArray[np.generic], affine: Affine, spacing: float = SPACING) -> Grid:
    """`volume` (z, y, x) as a Grid: averaged to about `spacing`, then interpolated linearly."""
    factors = [max(1, int(spacing / size + 0.01)) for size in voxel_sizes(affine)]
    coarse = _averaged(volume, factors[::-1])
    scaled = affine @ np.diag([*factors, 1.0])
    scaled[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    low, high = bounds(coarse.shape, scaled)
    shape = [int(count) + 1 for count in np.ceil((high - low) / spacing)][::-1]
    steps, start = _index_map(scaled, low, spacing)
    values = ndimage.affine_transform(
        coarse, steps, start, output_shape=shape, order=1, mode="constant", cval=np.nan, prefilter=False
    )
    return Grid(values, low, spacing)


def sampled(grid: Grid, shape: tuple[int, ...], affine: Affine) -> Volume:
    """`grid` at the voxels of a volume of `shape` (z, y, x) and `affine`; beyond the grid its nearest
    value.
    """
    steps = affine[:3, :3] / grid.spacing  # from an index of the volume to one of the grid
    start = (affine[:3, 3] - grid.origin) / grid.spacing
    result: Volume = ndimage.affine_transform(
        grid.values,
        steps[::-1, ::-1],
        start[::-1],
        output_shape=shape,
        order=1,
        mode="nearest",
        prefilter=False,
    )
    return result


def bounds(shape: tuple[int, ...], affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest LPS millimetres of the voxels of a volume of `shape` (z, y, x)."""
    corners = np.array(
        [[x, y, z] for x in (0, shape[2] - 1) for y in (0, shape[1] - 1) for z in (0, shape[0] - 1)]
    )
    placed = corners @ affine[:3, :3].T + affine[:3, 3]
    return placed.min(axis=0), placed.max(axis=0)


def _averaged(volume: NDArray[np.generic], factors: list[int]) -> Volume:
    """Means over blocks of `factors` (z, y, x) voxels; what is left over at the far ends is dropped."""
    result = np.asarray(volume)
    for axis, factor in enumerate(factors):
        count = result.shape[axis] // factor
        if factor == 1 or count == 0:
            continue
        cut = np.take(result, range(count * factor), axis) if result.shape[axis] % factor else result
        blocks = (*cut.shape[:axis], count, factor, *cut.shape[axis + 1 :])
        result = cut.reshape(blocks).mean(axis=axis + 1, dtype=np.float32)
    return np.asarray(result, np.float32)


def _index_map(
    affine: Affine, low: NDArray[np.float64], spacing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from a grid index (z, y, x) to an index (z, y, x) of a volume of `affine`."""
    inverse = np.linalg.inv(affine)
    matrix = inverse[:3, :3] * spacing
    start = inverse[:3, :3] @ low + inverse[:3, 3]
    return np.asarray(matrix[::-1, ::-1], np.float64), np.asarray(start[::-1], np.float64)
