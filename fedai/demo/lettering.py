"""Capital letters and digits as a console burns them into a picture: five dots by seven, drawn larger."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Seven rows from top to bottom, two hexadecimal digits each; the lowest bit is the rightmost dot.
_GLYPHS = dict(
    line.split()
    for line in """
    A 0E11111F111111
    B 1E11111E11111E
    C 0E11101010110E
    D 1E11111111111E
    E 1F10101E10101F
    F 1F10101E101010
    G 0E11101711110F
    H 1111111F111111
    I 0E04040404040E
    J 0702020202120C
    K 11121418141211
    L 1010101010101F
    M 111B1515111111
    N 11191513111111
    O 0E11111111110E
    P 1E11111E101010
    Q 0E11111115120D
    R 1E11111E141211
    S 0F10100E01011E
    T 1F040404040404
    U 1111111111110E
    V 11111111110A04
    W 11111115151B11
    X 11110A040A1111
    Y 11110A04040404
    Z 1F01020408101F
    0 0E11131519110E
    1 040C040404040E
    2 0E11010608101F
    3 0E11010601110E
    4 02060A121F0202
    5 1F101E0101110E
    6 0608101E11110E
    7 1F010204080808
    8 0E11110E11110E
    9 0E11110F01020C
    - 0000001F000000
    . 00000000000C0C
    / 01010204081010
    : 000C0C000C0C00
    , 000000000C0408
    """.splitlines()
    if line.strip()
)
_BLANK = "00000000000000"
_STEP = 6  # dots from one letter to the next


def fold(text: str) -> str:
    """Upper case without accents; what the font lacks becomes a blank."""
    plain = unicodedata.normalize("NFKD", text).upper()
    return "".join(c if c in _GLYPHS else " " for c in plain if not unicodedata.combining(c))


@cache
def _glyph(character: str) -> NDArray[np.bool_]:
    rows = bytes.fromhex(_GLYPHS.get(character, _BLANK))
    return np.array([[row >> (4 - column) & 1 for column in range(_STEP - 1)] for row in rows], bool)


def draw_line(text: str, scale: int) -> NDArray[np.bool_]:
    """Dots of one line of text, bool [7 x scale, 6 x scale x letters]."""
    folded = fold(text)
    dots = np.zeros((7, _STEP * max(len(folded), 1)), bool)
    for index, character in enumerate(folded):
        dots[:, index * _STEP : index * _STEP + _STEP - 1] = _glyph(character)
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)


def burn_in(pixels: NDArray[Any], lines: tuple[str, ...], value: int, *, corner: str, scale: int = 2) -> None:
    """Writes the lines into `pixels` [rows, columns] in place; `corner` is like "top left"."""
    pitch, margin = 9 * scale, 4 * scale
    top = margin if corner.startswith("top") else pixels.shape[0] - margin - pitch * len(lines)
    for index, line in enumerate(lines):
        dots = draw_line(line, scale)[:, : pixels.shape[1] - 2 * margin]
        left = margin if corner.endswith("left") else pixels.shape[1] - margin - dots.shape[1]
        row = top + index * pitch
        pixels[row : row + dots.shape[0], left : left + dots.shape[1]][dots] = value
