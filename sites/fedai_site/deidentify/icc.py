"""Colour profiles (ICC.1:2022) without what they tell about people: texts, dates, names of makers.

Curves, matrices and tables stay as they are; everything else becomes zeros in place: no offset changes.
"""

from __future__ import annotations

import struct

HEADER = 128
ENTRY = 12
MAXIMUM_TAGS = 100
SIGNATURE = slice(36, 40)
PASSED = (
    slice(0, 4),
    slice(8, 24),
    SIGNATURE,
    slice(64, 80),
)  # size, version, class, spaces, signature, intent, white
NUMERIC = frozenset(
    {
        b"XYZ ",
        b"curv",
        b"para",
        b"sf32",
        b"mft1",
        b"mft2",
        b"mAB ",
        b"mBA ",
        b"view",
        b"meas",
        b"chrm",
        b"sig ",
    }
)


def blanked(profile: bytes) -> bytes | None:
    """The profile with numbers alone in it; None if it isn't one."""
    if len(profile) < HEADER + 4 or profile[SIGNATURE] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, HEADER)
    end = HEADER + 4 + count * ENTRY
    if count > MAXIMUM_TAGS or end > len(profile):
        return None
    clean = bytearray(len(profile))
    for part in PASSED:
        clean[part] = profile[part]
    clean[HEADER:end] = profile[HEADER:end]
    for at in range(HEADER + 4, end, ENTRY):
        start, size = struct.unpack_from(">II", profile, at + 4)
        if start < end or start + size > len(profile) or not profile[at : at + 4].isascii():
            return None
        kind = profile[start : start + 4]
        stays = size if kind in NUMERIC else 4
        clean[start : start + stays] = profile[start : start + stays]
    return bytes(clean)
