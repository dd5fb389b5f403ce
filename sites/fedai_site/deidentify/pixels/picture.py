"""A PNG for the reviewer's eyes: the frame as a screen shows it, with frames around what was found."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedai_site.deidentify.pixels.boxes import Box

RED = (255, 64, 64)
LONGEST = 1400
"""Pixels of the longer side at most."""


def png(picture: NDArray[np.floating], boxes: Iterable[Box]) -> bytes:
    """A picture (H, W) of grey levels 0..255 with its boxes outlined in red, as a PNG file."""
    step = max(1, -(-max(picture.shape) // LONGEST))
    grey = np.clip(picture[::step, ::step], 0, 255).astype(np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, 2)
    for box in boxes:
        _outline(rgb, tuple(side // step for side in box))
    rows, columns = grey.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), rgb.reshape(rows, -1)], 1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(lines.tobytes()))
        + _chunk(b"IEND", b"")
    )


def _outline(rgb: NDArray[np.uint8], box: tuple[int, ...]) -> None:
    row0, col0, row1, col1 = box
    rgb[row0 : row1 + 1, [col0, min(col1, rgb.shape[1] - 1)]] = RED
    rgb[[row0, min(row1, rgb.shape[0] - 1)], col0 : col1 + 1] = RED


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
