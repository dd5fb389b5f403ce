"""Table E.1-1 of DICOM PS3.15 (which attributes identify a person, and what to do with them), read from its
data file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydicom.datadict import DicomDictionary

SUPPLEMENT: dict[int, str] = {
    **dict.fromkeys(
        (0x00081301, 0x00081302, 0x00081303, 0x00081304, 0x00100011, 0x00100014, 0x00100015), "SQ"
    ),
    **dict.fromkeys((0x00100041, 0x00100043, 0x00100044, 0x00100046), "SQ"),
    **dict.fromkeys((0x00100012, 0x00100013, 0x00100016, 0x00100042, 0x00100045), "LT"),
    **dict.fromkeys((0x0040A034, 0x0040A035, 0x0040B034, 0x0040B036), "DT"),
    **dict.fromkeys((0x0040B03B, 0x0040B03F, 0x3004007F), "LO"),
    **dict.fromkeys((0x00100047, 0x0040E012), "UR"),
    0x00102162: "UC",
}
"""VRs (PS3.6) of attributes that the table lists and pydicom's dictionary doesn't know yet."""


@dataclass(frozen=True)
class Row:
    """The Basic Profile's code (X, Z, D, U or a composite) and, by column, those of the options."""

    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class ConfidentialityTable:
    """Tag -> row; pattern ('50xxxxxx', 'PRIVATE') -> row; the edition and where it came from."""

    edition: str
    sha256_of_source_xml: str
    rows: Mapping[int, Row]
    patterns: Mapping[str, Row]

    @property
    def actions(self) -> dict[int, str]:
        """Tag -> code of the Basic Profile."""
        return {tag: row.basic for tag, row in self.rows.items()}

    def action(self, tag: int) -> str | None:
        """The Basic Profile's code for a tag as a number, or None if the table doesn't list it."""
        row = self.row(tag)
        return row.basic if row else None

    def row(self, tag: int) -> Row | None:
        """The row of a tag, curves and overlays included; None if the table doesn't list it."""
        return self.rows.get(tag) or self._repeating(tag)

    def _repeating(self, tag: int) -> Row | None:
        """Groups 5000-50FE wholly; of 6000-60FE overlay data and comments."""
        group = tag >> 24
        if group == 0x50 and not tag >> 16 & 1:
            return self.patterns["50xxxxxx"]
        if group == 0x60 and not tag >> 16 & 1 and tag & 0xFFFF in (0x3000, 0x4000):
            return self.patterns[f"60xx{tag & 0xFFFF:04X}"]
        return None


@cache
def load_table() -> ConfidentialityTable:
    """The table as shipped."""
    text = files(__package__).joinpath("table_e1_1.json").read_text(encoding="utf-8")
    data = json.loads(text)
    rows = {row[0]: Row(row[1], row[2] if len(row) > 2 else {}) for row in data["rows"]}
    patterns = {name: row for name, row in rows.items() if name == "PRIVATE" or "x" in name}
    plain = {int(name, 16): row for name, row in rows.items() if name not in patterns}
    return ConfidentialityTable(data["edition"], data["sha256_of_source_xml"], plain, patterns)


@cache
def standard_vr(tag: int) -> str:
    """The Standard's VR of a public tag, of 'US or SS' and the like the first; '' if nobody knows it."""
    entry = DicomDictionary.get(tag)
    return entry[0].split(" ")[0] if entry else SUPPLEMENT.get(tag, "")
