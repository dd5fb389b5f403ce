"""Small pictures of objects for the reviewer: decoded, windowed, scaled down, as PNG."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedai_site.verification.claims import PIXEL_TAGS
from fedai_site.verification.elements import pieces
from fedai_site.verification.part10 import NATIVE, Part10

FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError,
    RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What decoding broken pixels may raise."""
LARGEST_SIDE = 360
LARGEST_DECODED = 512 * 2**20
ROWS, COLUMNS, SAMPLES, BITS, FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280100, 0x00280008
PHOTOMETRIC = 0x00280004


def frames_of(parts: Part10) -> int:
    """How many frames the object says it has, at least one."""
    text = parts.text(FRAMES)
    return max(1, int(text)) if text.isdigit() and len(text) < 8 else 1


def decoded_size(parts: Part10) -> int:
    """Bytes that the pixels take when they are decoded, by the header; 0 if it doesn't say."""
    size = frames_of(parts)
    for tag in (ROWS, COLUMNS, SAMPLES, BITS):
        element = parts.first(tag)
        order = "little" if element is None or element.little else "big"
        size *= int.from_bytes(bytes(element.value[:2]), order) if element else 0  # type: ignore[arg-type]
    return size // 8


def is_packed(parts: Part10) -> bool:
    """Whether the object has pixels that are compressed."""
    has_pixels = any(e.tag in PIXEL_TAGS and e.depth == 0 for e in parts.elements)
    return has_pixels and parts.syntax not in NATIVE


def compressed_frames(parts: Part10) -> int:
    """Number of fragments beside the offset table."""
    pixels = next((e for e in parts.elements if e.tag in PIXEL_TAGS and e.depth == 0), None)
    return sum(1 for _ in pieces(pixels)) - 1 if pixels else 0


def decoded(path: Path) -> Iterator[NDArray[np.generic]]:
    """The frames of an object one after the other. Raises FAULTS for broken pixels."""
    from pydicom.pixels import iter_pixels, pixel_array

    with _quiet():
        try:
            yield from iter_pixels(path, raw=True)
        except ValueError:  # pydicom 3.0: not one by one where the stream's sign isn't the header's
            yield pixel_array(path, raw=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom's warnings and log lines quote values, and what is wrong with a file is a finding anyway."""
    logger = logging.getLogger("pydicom")
    was, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was


def picture(path: Path, parts: Part10, frame: int) -> bytes:
    """One frame as PNG. Raises FAULTS for broken pixels, ValueError for such that are too large."""
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    if not 0 < decoded_size(parts) // frames_of(parts) <= LARGEST_DECODED:
        raise ValueError("pixels of no size or too large")
    if parts.inflated and parts.broken:
        raise ValueError("not deflated as it should be")
    with _quiet():  # a deflated file has no frames that could be read by themselves
        pixels = np.asarray(pixel_array(dcmread(path) if parts.inflated else path, index=frame))
    shades = _shades(pixels, inverted=parts.text(PHOTOMETRIC) == "MONOCHROME1")
    return png(_smaller(shades))


def _shades(pixels: NDArray[np.generic], *, inverted: bool) -> NDArray[np.uint8]:
    """Grey or RGB in 0..255: colour as it is, grey between its 0.5 and 99.5 percentiles."""
    if pixels.ndim == 3 and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels[..., :3].astype(np.uint8))
    grey = pixels.astype(np.float32)
    grey = grey.reshape((*grey.shape[:2], -1))[..., 0] if grey.ndim > 2 else grey
    low, high = np.percentile(grey, (0.5, 99.5))
    scaled = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1) * 255
    shades: NDArray[np.uint8] = (255 - scaled if inverted else scaled).astype(np.uint8)
    return shades


def _smaller(shades: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean over square blocks, so that neither side is longer than LARGEST_SIDE."""
    block = -(-max(shades.shape[:2]) // LARGEST_SIDE)
    if block == 1:
        return shades
    rows, columns = (max(1, size // block) for size in shades.shape[:2])
    cut = shades[: rows * block, : columns * block]
    if cut.shape[0] < rows * block or cut.shape[1] < columns * block:
        return shades[::block, ::block]
    means = cut.reshape(rows, block, columns, block, -1).mean((1, 3)).astype(np.uint8)
    smaller: NDArray[np.uint8] = means[..., 0] if shades.ndim == 2 else means
    return smaller


def png(shades: NDArray[np.uint8]) -> bytes:
    """A PNG file of an array [rows, columns] (grey) or [rows, columns, 3] (RGB)."""
    rows, columns = shades.shape[:2]
    kind = 2 if shades.ndim == 3 else 0
    lines = shades.reshape(rows, -1)
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), lines], 1).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
