"""Training pictures: generated text over real and generated backgrounds, and where it is."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from fedai_site.deidentify.pixels.views import equalised
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.burned_in_text import drawing, scenery, words
from benchmarks.burned_in_text.drawing import Look
from benchmarks.burned_in_text.fonts import Fonts

Floats = NDArray[np.float32]
SIZE = 256
CELL = 4
SHARES = {"latin": 0.68, "hangul": 0.2, "japanese": 0.06, "cyrillic": 0.06}
SHORT = 0.1
"""Share of groups of lines that begin with a line of two to four characters."""
INVISIBLE = 5.0
"""Contrast in grey levels below which a line is neither text nor not text in training."""
OVER_NOISE = 0.25
"""Contrast as a share of the noise under the line below which it is neither."""
UNKNOWN = 2


@dataclass(frozen=True)
class Sample:
    """A picture, float32 (256, 256), 0..255; what its cells hold, uint8 (64, 64): 0, 1 (text) or 2
    (unknown).
    """

    picture: Floats
    cells: NDArray[np.uint8]


def background(rng: np.random.Generator, real: list[list[Floats]]) -> Floats:
    """A textless picture (256, 256), real (each file as often as any other) or generated, perhaps with
    clutter.
    """
    if rng.random() < 0.62:
        file = real[int(rng.integers(len(real)))]
        picture = _crop(rng, file[int(rng.integers(len(file)))])
    else:
        picture = scenery.scene(rng, SIZE)
    if rng.random() < 0.5:
        picture = scenery.clutter(rng, picture, int(rng.integers(1, 7)))
    if rng.random() < 0.25:
        picture = _with_blanks(rng, picture)
    return picture


def _with_blanks(rng: np.random.Generator, picture: Floats) -> Floats:
    """Boxes of one grey level where text was blanked: what a second pass must not call text."""
    picture = picture.copy()
    for _ in range(int(rng.integers(1, 7))):
        height = int(np.exp(rng.uniform(np.log(8), np.log(70))))
        width = int(height * np.exp(rng.uniform(-0.3, 2.2)))
        row, column = int(rng.integers(-height // 2, SIZE)), int(rng.integers(-width // 2, SIZE))
        place = np.s_[max(0, row) : max(0, row + height), max(0, column) : max(0, column + width)]
        if picture[place].size:
            picture[place] = np.median(picture[place]) if rng.random() < 0.7 else picture[place].flat[0]
    return picture


def _small(
    rng: np.random.Generator, picture: Floats, marks: NDArray[np.uint8]
) -> tuple[Floats, NDArray[np.uint8]]:
    """A small picture: the corner of this one, and beyond its edges its last row and column repeated."""
    rows, columns = (int(side) for side in np.exp(rng.uniform(np.log(24), np.log(200), 2)))
    within = np.zeros_like(marks)
    within[:rows, :columns] = marks[:rows, :columns]
    more = ((0, SIZE - rows), (0, SIZE - columns))
    return np.pad(picture[:rows, :columns], more, mode="edge"), within


def _crop(rng: np.random.Generator, picture: Floats) -> Floats:
    """A part of a real picture, scaled, turned, with grey levels of its own."""
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(2.2))))
    need = int(np.ceil(SIZE / scale))
    rows, columns = picture.shape
    row, column = (
        int(rng.integers(0, max(1, rows - need + 1))),
        int(rng.integers(0, max(1, columns - need + 1))),
    )
    part = Image.fromarray(picture[row : row + need, column : column + need])
    if rng.random() < 0.7 and min(part.size) == need:
        part = part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    values = np.asarray(part, np.float32)
    values = np.pad(values, [(0, max(0, SIZE - side)) for side in values.shape])[:SIZE, :SIZE]
    values = np.rot90(values, int(rng.integers(0, 4)))
    if rng.random() < 0.5:
        values = values[:, ::-1]
    values = 255 * (np.clip(values, 0, 255) / 255) ** np.float32(np.exp(rng.uniform(-0.8, 0.8)))
    if rng.random() < 0.5:
        low, high = rng.uniform(0, 120), rng.uniform(130, 255)
        values = low * rng.integers(0, 2) + values * (high - low) / 255
    return np.ascontiguousarray(values, np.float32)


def look(rng: np.random.Generator) -> Look:
    """How a line, or a group of lines, is drawn."""
    size = rng.uniform(np.log(8), np.log(60)) if rng.random() < 0.4 else rng.uniform(np.log(11), np.log(40))
    faint = rng.random() < 0.5
    contrast = float(np.exp(rng.uniform(np.log(7), np.log(80)))) if faint else float(rng.uniform(15, 255))
    plate = rng.random() < 0.12
    turned = rng.random()
    angle = 90.0 * rng.integers(1, 4) if turned < 0.08 else rng.normal(0, 4) if turned < 0.16 else 0.0
    return Look(
        contrast=contrast * (1 if rng.random() < 0.65 else -1),
        angle=float(angle),
        outline=int(rng.integers(1, 3)) if not faint and rng.random() < 0.1 and size > np.log(13) else 0,
        box=float(rng.choice([1.0, rng.uniform(0.3, 1)])) if plate else 0.0,
        plate=float(rng.uniform(0, 255)),
        smooth=bool(rng.random() < 0.7),
        stretch=float(np.exp(rng.normal(0, 0.2))) if rng.random() < 0.3 else 1.0,
        blur=float(rng.uniform(0.3, 1.2)) if rng.random() < 0.15 else 0.0,
        coarse=2 if rng.random() < 0.12 else 1,
    )


def _write(rng: np.random.Generator, picture: Floats, fonts: Fonts, marks: NDArray[np.uint8]) -> None:
    """Write one group of lines into the picture, and into the marks where they are."""
    style = look(rng)
    size = int(
        np.exp(
            rng.uniform(np.log(8), np.log(60)) if rng.random() < 0.3 else rng.uniform(np.log(10), np.log(38))
        )
    )
    row = int(rng.integers(-size // 3, SIZE - size // 2))
    column = int(rng.integers(-size * 2, SIZE - size)) if rng.random() < 0.8 else int(rng.integers(0, 20))
    script, text = words.line(rng, SHARES)
    if rng.random() < SHORT:
        text = text[: int(rng.integers(2, 5))].strip() or text
    font = fonts.pick(rng, script, max(8, size // style.coarse))
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 5]))):
        drawn = drawing.draw(picture, text, font, style, row, column)
        if drawn is not None:
            unseen = drawn.contrast < max(INVISIBLE, OVER_NOISE * drawn.noise)
            marks[drawn.area] = UNKNOWN if unseen else 1
        row += int(size * rng.uniform(1.05, 1.6))
        same = words.SCRIPTS[script](rng).strip()
        text = same if len(same) > 1 else text


def _finished(rng: np.random.Generator, picture: Floats) -> Floats:
    """What happens to a picture after text was burned in: compression, scaling, inversion, noise."""
    fate = rng.random()
    if fate < 0.12:
        picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, 0.9))
    elif fate < 0.2:
        picture = picture + rng.normal(0, rng.uniform(0.5, 8), picture.shape)
    picture = np.clip(picture, 0, 255)
    if rng.random() < 0.25:
        picture = 255 - picture
    if rng.random() < 0.7:
        picture = np.round(picture)
    if rng.random() < 0.15:
        buffer = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=int(rng.integers(30, 96)))
        picture = np.asarray(Image.open(buffer), np.float32)
    return np.asarray(picture, np.float32)


def sample(seed: int, real: list[list[Floats]], fonts: Fonts, equal: float = 0.0) -> Sample:
    """The training picture number `seed`: the same each time. A share of `equal` has its grey levels
    equalised, as one of the views in which the detector will see pictures has.
    """
    rng = np.random.default_rng(seed)
    picture = np.clip(background(rng, real), 0, 255).astype(np.float32)
    marks = np.zeros((SIZE, SIZE), np.uint8)
    if rng.random() < 0.75:
        for _ in range(int(rng.choice([1, 1, 2, 3, 5, 8]))):
            _write(rng, picture, fonts, marks)
    picture = _finished(rng, picture)
    if rng.random() < 0.12:
        picture, marks = _small(rng, picture, marks)
    if equal and rng.random() < equal:
        picture = equalised(
            picture + rng.uniform(0, 1, picture.shape).astype(np.float32), picture.reshape(-1)
        )
    return Sample(picture, _cells(marks))


def _cells(marks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A cell is text if 40% of it is; unknown if more of it is unknown, or if only a little of it is text."""
    blocks = (
        marks.reshape(SIZE // CELL, CELL, SIZE // CELL, CELL)
        .swapaxes(1, 2)
        .reshape(SIZE // CELL, SIZE // CELL, -1)
    )
    text, unknown = (blocks == 1).mean(-1), (blocks == UNKNOWN).mean(-1)
    cells = np.where(text >= 0.4, 1, np.where((unknown > 0.2) | (text > 0.05), UNKNOWN, 0))
    return cells.astype(np.uint8)
