"""The bench: real pictures that the training never saw, with lines of text in fonts that it never saw, or
none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.burned_in_text import drawing, scenery, words
from benchmarks.burned_in_text.drawing import Look
from benchmarks.burned_in_text.fonts import Fonts

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SHARES = {"latin": 0.65, "hangul": 0.35}
SMALLEST, LARGEST = 10, 36
"""Font sizes in pixels."""


@dataclass(frozen=True)
class Line:
    """One line: its ink (H, W), each pixel that it changed; script; contrast reached in grey levels."""

    ink: NDArray[np.bool_]
    script: str
    contrast: float
    size: int


@dataclass(frozen=True)
class Case:
    """A picture (H, W) as a screen shows it, and the lines in it. `kind`: "text", "none" or "clutter"."""

    picture: Bytes
    kind: str
    background: str
    lines: tuple[Line, ...]


def corpus(real: dict[str, Floats], texts: int, empties: int, seed: int = 2027) -> Iterator[Case]:
    """`texts` pictures with text, `empties` real ones without, and half as many without text but with
    clutter.
    """
    names = sorted(real)
    kinds = ["text"] * texts + ["none"] * empties + ["clutter"] * (empties // 2)
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        yield case(rng, kind, name, real[name])


def case(rng: np.random.Generator, kind: str, name: str, whole: Floats) -> Case:
    """One picture of the bench."""
    picture = view(rng, whole)
    lines: tuple[Line, ...] = ()
    if kind == "clutter":
        side = max(picture.shape)
        wide = np.pad(picture, [(0, side - length) for length in picture.shape], mode="edge")
        picture = scenery.clutter(rng, wide, int(rng.integers(2, 7)))[: picture.shape[0], : picture.shape[1]]
    if kind == "text":
        lines = tuple(_lines(rng, picture))
    return Case(np.clip(np.round(picture), 0, 255).astype(np.uint8), kind, name, lines)


def view(rng: np.random.Generator, whole: Floats) -> Floats:
    """Up to 640 x 640 pixels of a real picture, as it is or at half its size; small ones enlarged twice."""
    if min(whole.shape) < 200:
        whole = np.asarray(ndimage.zoom(whole, 2, order=1), np.float32)
    if max(whole.shape) > 1200 and rng.random() < 0.6:
        whole = np.asarray(ndimage.zoom(whole, 0.4, order=1), np.float32)
    starts = [int(rng.integers(0, max(1, side - 639))) for side in whole.shape]
    part = whole[starts[0] : starts[0] + 640, starts[1] : starts[1] + 640]
    return np.array(part[:, ::-1] if rng.random() < 0.5 else part, np.float32)


def _lines(rng: np.random.Generator, picture: Floats) -> Iterator[Line]:
    """Up to five lines that don't touch each other, drawn into the picture."""
    taken = np.zeros(picture.shape, bool)
    for _ in range(int(rng.integers(2, 6))):
        size = int(rng.integers(SMALLEST, LARGEST + 1))
        script, text = words.line(rng, SHARES)
        sign = 1 if rng.random() < 0.7 else -1
        look = Look(contrast=sign * float(rng.uniform(0, 255)), smooth=bool(rng.random() < 0.8))
        font = Fonts("bench").pick(rng, script, size)
        width, height = (int(side) for side in font.getbbox(text)[2:])
        row = int(rng.integers(0, max(1, picture.shape[0] - height)))
        column = int(rng.integers(0, max(1, picture.shape[1] - width)))
        if taken[max(0, row - 4) : row + height + 4, max(0, column - 8) : column + width + 8].any():
            continue
        before = np.round(np.clip(picture, 0, 255))
        drawn = drawing.draw(picture, text, font, look, row, column)
        if drawn is not None:
            taken |= drawn.area
            changed = drawn.ink & (np.round(np.clip(picture, 0, 255)) != before)
            if changed.any():
                yield Line(changed, script, drawn.contrast, size)
