"""Pictures of a head's surface for a reviewer's eyes: from the front and from both sides, as a PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedai_site.deidentify.faces.grid import Grid, Mask, Volume

GAP = 6
Picture = NDArray[np.uint8]


def render(grid: Grid, level: float) -> Picture:
    """Front, right and left view of what is above `level` in `grid`, side by side, uint8 (h, w)."""
    reach = abs(level) * 2 + 100
    tissue = (
        ndimage.gaussian_filter(np.nan_to_num(grid.values, nan=-1e4).clip(level - reach, level + reach), 0.7)
        > level
    )
    side = np.moveaxis(tissue, 2, 0)
    return beside([_view(np.moveaxis(tissue, 1, 0)), _view(side), _view(side[::-1, :, ::-1])])


def beside(pictures: list[Picture]) -> Picture:
    """Pictures in one row, with a gap."""
    height = max(len(picture) for picture in pictures)
    return np.hstack([np.pad(picture, ((0, height - len(picture)), (0, GAP))) for picture in pictures])


def above(first: Picture, second: Picture) -> Picture:
    """One picture above the other."""
    width = max(first.shape[1], second.shape[1])
    return np.vstack([np.pad(part, ((0, GAP), (0, width - part.shape[1]))) for part in (first, second)])


def _view(tissue: Mask) -> Picture:
    """Shaded surface seen along the first axis of (depth, z, across), the crown up."""
    depth: Volume = np.where(tissue.any(axis=0), tissue.argmax(axis=0), len(tissue)).astype(np.float32)
    smooth = ndimage.gaussian_filter(depth, 0.8)
    up, across = np.gradient(smooth)
    facing = 1 / np.sqrt(1 + up**2 + across**2)
    light = facing * (1 - 0.5 * across + 0.5 * up) / 1.2
    grey = np.where(depth < len(tissue), 40 + 200 * np.clip(light, 0, 1) * (1 - 0.4 * depth / len(tissue)), 0)
    return np.asarray(grey[::-1], np.uint8)


def png(picture: Picture) -> bytes:
    """An 8-bit grey PNG (ISO/IEC 15948)."""
    height, width = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
