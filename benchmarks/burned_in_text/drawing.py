"""Draws a line of text into a picture of display grey levels, and says which pixels it changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

INK = 0.5
"""Coverage from which a pixel counts as ink."""
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    `contrast` is signed, in display grey levels against the mean of what lies under the line; `outline` in
    pixels; `box` is the opacity of a plate behind the text (0: none) and `plate` its grey level; `coarse`:
    so many pixels
    wide is one pixel of the font.
    """

    contrast: float
    angle: float = 0.0
    outline: int = 0
    box: float = 0.0
    plate: float = 0.0
    smooth: bool = True
    stretch: float = 1.0
    blur: float = 0.0
    coarse: int = 1


@dataclass(frozen=True)
class Drawn:
    """Masks (H, W): the ink, the area of the line; the contrast that was really reached, in grey levels."""

    ink: Mask
    area: Mask
    contrast: float
    noise: float


def stencil(text: str, font: ImageFont.FreeTypeFont, look: Look) -> tuple[Floats, Floats, Floats]:
    """Coverage 0..1 of the text, of its outline, and of the line's own rectangle, rotated alike."""
    left, top, right, bottom = font.getbbox(text, stroke_width=look.outline)
    size = (max(1, int(right - left)), max(1, int(bottom - top)))
    layers = []
    for stroke in (0, look.outline):
        layer = Image.new("L", size)
        pen = ImageDraw.Draw(layer)
        pen.fontmode = "L" if look.smooth else "1"
        pen.text((-left, -top), text, fill=255, font=font, stroke_width=stroke)
        layers.append(layer)
    layers.append(Image.new("L", size, 255))
    if look.coarse > 1:
        layers = [
            layer.resize((size[0] * look.coarse, size[1] * look.coarse), Image.Resampling.NEAREST)
            for layer in layers
        ]
        size = layers[0].size
    if look.stretch != 1.0:
        wide = (max(1, round(size[0] * look.stretch)), size[1])
        layers = [layer.resize(wide, Image.Resampling.BILINEAR) for layer in layers]
    if look.angle:
        layers = [layer.rotate(look.angle, Image.Resampling.BILINEAR, expand=True) for layer in layers]
    glyphs, outline, area = (np.asarray(layer, np.float32) / 255 for layer in layers)
    if look.blur:
        glyphs, outline = (ndimage.gaussian_filter(layer, look.blur) for layer in (glyphs, outline))
    return glyphs, outline, area


def _grey(around: float, contrast: float) -> float:
    """The grey level that far from `around`; towards the other end where there is no room."""
    wanted, other = around + contrast, around - contrast
    return wanted if 0 <= wanted <= 255 else float(np.clip(other if 0 <= other <= 255 else wanted, 0, 255))


def draw(
    picture: Floats, text: str, font: ImageFont.FreeTypeFont, look: Look, row: int, column: int
) -> Drawn | None:
    """Draw a line in place with its upper left corner there; what falls off the edge is lost.

    Returns None, with nothing drawn, if none of it lies within the picture.
    """
    glyphs, outline, area = stencil(text, font, look)
    height, width = glyphs.shape
    rows = slice(max(0, row), min(picture.shape[0], row + height))
    columns = slice(max(0, column), min(picture.shape[1], column + width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    own = np.s_[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
    glyphs, outline, area = glyphs[own], outline[own], area[own]
    if (glyphs > INK).sum() < 4:
        return None
    under = picture[rows, columns]
    noise = float((under - ndimage.uniform_filter(under, 5)).std()) * (1 - look.box)
    if look.box:
        under = under * (1 - area * look.box) + look.plate * area * look.box
    around = float(under.mean())
    grey = _grey(around, look.contrast)
    if look.outline:
        edge = np.float32(0 if grey > 127 else 255)
        under = under * (1 - outline) + edge * outline
    picture[rows, columns] = under * (1 - glyphs) + np.float32(grey) * glyphs
    reached = 255.0 if look.outline else abs(grey - around)
    ink, covered = np.zeros(picture.shape, bool), np.zeros(picture.shape, bool)
    ink[rows, columns], covered[rows, columns] = glyphs > INK, area > INK
    return Drawn(ink, covered, reached, noise)
