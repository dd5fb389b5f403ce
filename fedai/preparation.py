"""From an image's values to what a network is shown: percentile window, resize, uint8.

Sites use it to fill their caches; a copy of it goes out with a MONAI bundle. So it stands on numpy alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def prepare(
    image: NDArray[np.float32], size: tuple[int, int], lower: float, upper: float
) -> NDArray[np.uint8]:
    """Window from the percentile `lower` to `upper` -> area-averaged resize that keeps the aspect ratio ->
    centred on black; uint8 [rows, columns] of `size`. An image without contrast becomes 0.
    """
    is_finite = np.isfinite(image)
    if not is_finite.any():
        return np.zeros(size, dtype=np.uint8)
    low, high = np.percentile(image[is_finite], [lower, upper])
    if high <= low:
        return np.zeros(size, dtype=np.uint8)
    unit = np.clip((np.where(is_finite, image, low) - low) / (high - low), 0, 1)
    return np.rint(fit(unit.astype(np.float32), size) * 255).astype(np.uint8)


def fit(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Scale float32 [h, w] into [rows, columns] by area averaging, aspect ratio kept, the rest 0, centred."""
    height, width, top, left = placed((image.shape[0], image.shape[1]), size)
    small = _overlaps(image.shape[0], height) @ image @ _overlaps(image.shape[1], width).T
    out = np.zeros(size, dtype=np.float32)
    out[top : top + height, left : left + width] = small
    return out


def fit_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """As `fit`, for labels uint8 [h, w]: each pixel takes that of the pixel which its centre is in."""
    height, width, top, left = placed((labels.shape[0], labels.shape[1]), size)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(labels.shape, (height, width), strict=True)
    )
    out = np.zeros(size, dtype=np.uint8)
    out[top : top + height, left : left + width] = labels[np.ix_(rows, columns)]
    return out


def placed(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Height, width, top and left that a picture of `shape` has in one of `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(size[n], max(1, round(shape[n] * scale))) for n in (0, 1))
    return height, width, (size[0] - height) // 2, (size[1] - width) // 2


@lru_cache(maxsize=64)
def _overlaps(source: int, target: int) -> NDArray[np.float32]:
    """[target, source]: the share of each source cell in each target cell; rows sum to 1."""
    edges = np.linspace(0, source, target + 1)
    cells = np.arange(source)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
