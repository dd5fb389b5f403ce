"""The colour profile of sRGB (IEC 61966-2-1), built from its published numbers (ICC.1:2022, 7 to 10).

It takes the place of any other profile: curves and matrices are numbers that may spell anything, and whether
they do can't be told from them.
"""

from __future__ import annotations

import struct
from functools import cache

VERSION = 0x02400000
PRIMARIES = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
    b"wtpt": (0.95045, 1.0, 1.08905),
}
"""Adapted to D50 (the white point: D65 itself), as IEC 61966-2-1 and ICC's own sRGB profiles give them."""
D50 = (0.9642, 1.0, 0.8249)
CURVES = (b"rTRC", b"gTRC", b"bTRC")
STEPS = 1024


@cache
def srgb() -> bytes:
    """A display profile of version 2.4, matrix and curves; the same bytes at every site."""
    bodies = {name: b"XYZ " + bytes(4) + _xyz(values) for name, values in PRIMARIES.items()}
    bodies |= dict.fromkeys(CURVES, _curve())
    bodies |= {b"desc": _description(b"sRGB"), b"cprt": b"text" + bytes(4) + b"none\0"}
    at = 128 + 4 + 12 * len(bodies)
    table, data = struct.pack(">I", len(bodies)), b""
    for name, body in bodies.items():
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    header = struct.pack(">I4xI4s4s4s12x4s", at + len(data), VERSION, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (header + bytes(28) + _xyz(D50)).ljust(128, b"\0") + table + data


def _xyz(values: tuple[float, float, float]) -> bytes:
    return struct.pack(">3i", *(round(value * 0x10000) for value in values))


def _curve() -> bytes:
    points = (step / (STEPS - 1) for step in range(STEPS))
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in points)
    numbers = [round(value * 0xFFFF) for value in linear]
    return b"curv" + bytes(4) + struct.pack(f">I{STEPS}H", STEPS, *numbers)


def _description(text: bytes) -> bytes:
    """textDescriptionType of version 2: ASCII, then an empty Unicode and an empty Macintosh part."""
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
