"""Pictures of a frame as a screen would show it: display grey levels 0..255, in several windows and channels.

Text often sits at the highest or lowest value, or in a narrow band of 12 or 16 bits: one window doesn't show
all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, convert_color_space

from fedai_site.deidentify.pixels.frames import Stored

Floats = NDArray[np.float32]
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
NARROW = 72
"""Grey levels: an 8-bit picture that uses fewer is also looked at stretched."""
COLOURED = 24
"""Grey levels by which channels must differ for each to be looked at by itself."""
BINS = 1024
ALIKE = 3.0
"""Grey levels by which two windows may differ and still show the same."""


def distinct(pictures: Iterable[Floats]) -> Iterator[tuple[int, Floats]]:
    """(number, picture) of those that differ from each one before by more than ALIKE grey levels anywhere."""
    kept: list[Floats] = []
    for number, picture in enumerate(pictures):
        if not any(float(np.abs(picture - one).max()) <= ALIKE for one in kept):
            kept.append(picture)
            yield number, picture


def views(stored: Stored, colour: str, dataset: Dataset, *, thorough: bool) -> Iterator[Floats]:
    """Pictures (H, W), the most telling first; all of them if `thorough`."""
    if colour == "PALETTE COLOR":
        yield from _coloured(_display(apply_color_lut(stored, dataset)), thorough)
    elif stored.ndim == 3:
        rgb = stored
        if colour.startswith("YBR_FULL") and stored.dtype == np.uint8:
            rgb = convert_color_space(stored, "YBR_FULL", "RGB")
        yield from _coloured(_display(rgb), thorough)
    else:
        yield from _grey(stored, dataset, thorough)


def _display(values: NDArray[Any]) -> Floats:
    """Colour samples of any depth as 0..255."""
    depth = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else max(float(values.max()), 1e-6)
    most = 255 if depth == 255 else max(int(values.max()), 1)
    return values.astype(np.float32) * np.float32(255 / most)


def _coloured(rgb: Floats, thorough: bool) -> Iterator[Floats]:
    yield np.asarray(rgb @ LUMINANCE, np.float32)
    if not thorough:
        return
    if float(np.abs(rgb - rgb.mean(-1, keepdims=True)).max()) >= COLOURED:
        for channel in range(3):
            yield np.ascontiguousarray(rgb[..., channel])
    else:
        yield from _stretched(rgb[..., 0])


def _stretched(picture: Floats) -> Iterator[Floats]:
    """The picture over its own range, if it uses little of 0..255."""
    low, high = np.percentile(picture, [1, 99])
    if 0 < high - low < NARROW:
        yield window(picture, float(low), float(high))


def _grey(stored: Stored, dataset: Dataset, thorough: bool) -> Iterator[Floats]:
    values = stored.astype(np.float32)
    if not np.isfinite(values).all():
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    least, most = float(values.min()), float(values.max())
    if least == most:
        return
    if stored.dtype == np.uint8 and most > 1:
        yield values
        if thorough:
            yield from _stretched(values)
        return
    yield window(values, least, most)
    seen = _without_padding(values, dataset)
    low, high = (float(level) for level in np.percentile(seen, [0.5, 99.5]))
    if low < high and (high - low) < 0.9 * (most - least):
        yield window(values, low, high)
    if thorough:
        yield from _stated(values, dataset)
        yield equalised(values, seen)


def window(values: Floats, low: float, high: float) -> Floats:
    """low..high mapped to 0..255, the rest cut off."""
    scaled = (values - np.float32(low)) * np.float32(255 / max(high - low, 1e-9))
    return np.asarray(np.clip(scaled, 0, 255), np.float32)


def _without_padding(values: Floats, dataset: Dataset) -> Floats:
    """Values that are not padding (0028,0120), unless there are few others."""
    padding = dataset.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return values.reshape(-1)
    inside = values[values != padding]
    return inside if inside.size > values.size // 20 else values.reshape(-1)


def _stated(values: Floats, dataset: Dataset) -> Iterator[Floats]:
    """The windows that the header itself states (PS3.3 C.11.2.1.2), up to two."""
    try:
        slope, intercept = (
            float(dataset.get("RescaleSlope") or 1),
            float(dataset.get("RescaleIntercept") or 0),
        )
        centres, widths = (_numbers(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError):
        return
    for centre, width in list(zip(centres, widths, strict=False))[:2]:
        if width > 1 and slope:
            low, high = ((centre + side * width / 2 - intercept) / slope for side in (-1, 1))
            yield window(values, min(low, high), max(low, high))


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [
        float(part)
        for part in (value if hasattr(value, "__iter__") and not isinstance(value, str) else [value])
    ]


def equalised(values: Floats, seen: Floats) -> Floats:
    """Every grey level about as often as any other: faint steps anywhere become visible."""
    least, most = float(values.min()), float(values.max())
    counts, edges = np.histogram(seen, BINS, (least, most))
    share = np.cumsum(np.minimum(counts, counts.sum() * 0.02), dtype=np.float64)
    share = share / max(share[-1], 1e-9) * 255
    return np.asarray(np.interp(values, edges[1:], share), np.float32)
