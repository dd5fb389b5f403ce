"""Attributes that hold short text about devices and how images are made, and codes of public schemes:
what the second reader takes for harmless if it looks so. Its own judgement, not the engine's.
"""

from __future__ import annotations

import re

TECHNICAL = frozenset(
    {
        0x00080070,  # Manufacturer
        0x00081090,  # Manufacturer's Model Name
        0x00080100,  # Code Value
        0x00080102,  # Coding Scheme Designator
        0x00080103,  # Coding Scheme Version
        0x00080104,  # Code Meaning
        0x00180022,  # Scan Options
        0x00180024,  # Sequence Name
        0x00180085,  # Imaged Nucleus
        0x00181020,  # Software Versions
        0x00181160,  # Filter Type
        0x00181210,  # Convolution Kernel
        0x00181250,  # Receive Coil Name
        0x00181251,  # Transmit Coil Name
        0x00189005,  # Pulse Sequence Name
        0x00281054,  # Rescale Type
        0x00281055,  # Window Center & Width Explanation
        0x00283003,  # LUT Explanation
        0x00283004,  # Modality LUT Type
    }
)
PLAIN = re.compile(rb"(?!.*[\^@])(?!.*[0-9]{7})[ -~]{0,64}")


def is_plain(value: bytes) -> bool:
    """Whether each value is short ASCII without '^', '@' and long numbers."""
    return all(PLAIN.fullmatch(part.strip(b" \0")) for part in value.split(b"\\"))


# The dihedral group of the pentagon and the permutation of Verhoeff's check digit (1969).
TIMES = tuple(
    tuple((a + b) % 5 if a < 5 and b < 5 else
          (a + b) % 5 + 5 if a < 5 else
          (a - b) % 5 + 5 if b < 5 else (a - b) % 5 for b in range(10))
    for a in range(10)
)  # fmt: skip
TURN = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def is_snomed(value: bytes) -> bool:
    """Whether digits are the identifier of a SNOMED CT concept: partition 00 or 10, Verhoeff's check
    digit right.
    """
    if not re.fullmatch(rb"[1-9]\d{5,17}", value) or value[-3:-1] not in (b"00", b"10"):
        return False
    check = 0
    for place, digit in enumerate(reversed(value)):
        turned = digit - 48
        for _ in range(place % 8):
            turned = TURN[turned]
        check = TIMES[check][turned]
    return check == 0


DEFINED_TERMS = frozenset(
    {
        "YES", "NO", "NONE", "UNKNOWN", "M", "F", "O", "U", "ORIGINAL", "DERIVED", "PRIMARY",
        "SECONDARY", "AXIAL", "LOCALIZER", "MIN", "MAX", "MEAN", "SUM", "OTHER", "MONOCHROME1",
        "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420",
        "ARGB", "HSV", "CMYK", "PALETTE", "COLOR", "CR", "CT", "MR", "US", "NM", "PT", "XA", "RF",
        "DX", "MG", "OT", "SC", "SR", "PR", "KO", "SEG", "DOC", "REG", "ECG", "IO", "ES", "GM",
        "SM", "XC", "OP", "OPT", "PX", "RG", "AU", "FID", "PLAN", "BMD", "AP", "PA", "LL", "RL",
        "LAO", "RAO", "L", "R", "B", "HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL",
        "IDENTITY", "SIGMOID", "LINEAR", "LOG", "DISP", "HU", "OD", "HEAD", "NECK", "CHEST",
        "ABDOMEN", "PELVIS", "HAND", "FOOT", "KNEE", "ARM", "LEG", "SKULL", "SPINE", "BRAIN",
        "BREAST", "HEART", "ELBOW", "ANKLE", "HIP", "SHOULDER", "SE", "GR", "EP", "RM", "IR", "SS",
        "SK", "SP", "SAT1", "PER", "TG", "FS", "2D", "3D", "PFP", "PFF", "CG", "LOSSY", "00", "01",
        "REMOVED", "MODIFIED", "UNMODIFIED", "BODY", "WHOLEBODY", "EXTREMITY", "HELICAL", "SPIRAL",
        "STATIC", "DYNAMIC", "GATED", "ROW", "COL", "AEC", "FIXED", "MANUAL", "AUTO", "ON", "OFF",
    }
)  # fmt: skip
"""Defined terms of common code strings: a name that is spelled like one can't be told from it there."""
