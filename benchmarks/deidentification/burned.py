"""Text burned into a corner of an image, and how much of its ink is still there afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from benchmarks.deidentification.plants import Hand, Plant

LEFT = 0.35
"""Correlation with the original's text region from which the ink counts as still there."""


def burn(item: Dataset, hand: Hand) -> None:
    """Patient name and number in a corner, bright on dark, in Pillow's own font; native pixels only."""
    from PIL import Image, ImageDraw, ImageFont

    pixels = frames_of(item)
    side = pixels.shape[1]
    height = hand.random.randrange(12, 19)
    ink = Image.new("L", (side, side))
    words = hand.random.choice(
        (hand.person.family.upper(), f"ID {hand.person.number}", f"{hand.day:%Y-%m-%d}")
    )
    drawing = ImageDraw.Draw(ink)
    font = ImageFont.load_default(size=height)
    left, top, right, bottom = (int(value) for value in drawing.textbbox((4, 4), words, font=font))
    row = hand.random.choice((0, side - bottom - 6))
    drawing.text((4, 4 + row), words, font=font, fill=255)
    mask = np.asarray(ink, dtype=np.float32)[None, :, :, None] / 255
    brightest = 2 ** int(item.BitsStored) - 1
    level = brightest * hand.random.uniform(0.6, 1.0)
    drawn = (pixels * (1 - mask) + level * mask).astype(pixels.dtype)
    item.PixelData = drawn.tobytes()
    box = (top + row, left, min(bottom + row, side), min(right, side))
    hand.planted.append(Plant(words, "(7FE0,0010) corner", "burned in", "ink", box))


def frames_of(item: Dataset) -> NDArray[np.uint16 | np.uint8]:
    """[frames, rows, columns, samples]."""
    kind = np.uint16 if item.BitsAllocated == 16 else np.uint8
    shape = (
        int(item.get("NumberOfFrames") or 1),
        int(item.Rows),
        int(item.Columns),
        int(item.SamplesPerPixel),
    )
    return np.frombuffer(item.PixelData, kind)[: int(np.prod(shape))].reshape(shape)


def ink_left(before: NDArray[np.float32], after: NDArray[np.float32], box: tuple[int, int, int, int]) -> bool:
    """Whether the region still looks like the original's: [rows, columns] each."""
    if after.shape != before.shape:
        return False
    row0, column0, row1, column1 = box
    one, two = (part[row0:row1, column0:column1].astype(np.float64) for part in (before, after))
    if one.size == 0 or two.std() < 1e-6 or one.std() < 1e-6:
        return False
    return bool(np.corrcoef(one.ravel(), two.ravel())[0, 1] > LEFT)
