"""Table E.1-1 as this benchmark reads it (its own copy, see NOTICE), and pools of attributes to plant in."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom.datadict import DicomDictionary

TABLE = Path(__file__).with_name("table_e1_1.csv")
OPTIONS = (
    "safe-private", "uids", "device", "institution", "patient", "full-dates", "modified-dates", "descriptors",
    "structured-content", "graphics",
)  # fmt: skip
NEWER = {
    0x0040B034: "DT", 0x0040E012: "UR", 0x3004007F: "LO", 0x0040A034: "DT", 0x0040A035: "DT",
    0x00102162: "UC", 0x00100044: "SQ", 0x00100045: "UT", 0x00100041: "SQ", 0x00081304: "SQ",
    0x0040B03F: "LO",
    0x0040B03B: "LO", 0x00100012: "LT", 0x00100013: "LT", 0x00100011: "SQ", 0x00081302: "SQ",
    0x00081301: "SQ",
    0x00100015: "SQ", 0x00100016: "UT", 0x00081303: "SQ", 0x0040B036: "DT", 0x00100046: "SQ",
    0x00100042: "LT",
    0x00100047: "UR", 0x00100043: "SQ", 0x00100014: "SQ",
}  # fmt: skip
"""Value representations of attributes newer than pydicom's dictionary (PS3.6)."""


@dataclass(frozen=True)
class Row:
    """One row: `tag` as printed ('00080050', '60xx3000', 'PRIVATE'), the Basic action, actions by option."""

    tag: str
    name: str
    basic: str
    options: dict[str, str]

    @property
    def number(self) -> int | None:
        return (
            int(self.tag, 16)
            if self.tag.isalnum() and "x" not in self.tag and self.tag != "PRIVATE"
            else None
        )

    def code(self, option: str | None) -> str:
        """The action under the Basic Profile with one option ('' or None: without)."""
        return self.options.get(option or "", self.basic)


@cache
def rows() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8") as lines:
        return tuple(
            Row(
                line["tag"], line["name"], line["basic"], {name: line[name] for name in OPTIONS if line[name]}
            )
            for line in csv.DictReader(lines)
        )


@cache
def listed() -> dict[int, Row]:
    return {row.number: row for row in rows() if row.number is not None}


def vr_of(tag: int) -> str:
    """The representation, of several the first; '' where the dictionary doesn't know the tag."""
    if tag in NEWER:
        return NEWER[tag]
    entry = DicomDictionary.get(tag)
    return entry[0].split(" ")[0] if entry else ""


NEEDED = frozenset({
    0x00080005, 0x00080016, 0x00080060, 0x00020010, 0x00280002, 0x00280004, 0x00280006, 0x00280008,
    0x00280010,
    0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00080001, 0x00280301, 0x00280302,
    0x00120062,
    0x00120063, 0x00120064, 0x00280303, 0x00280009, 0x00080008, 0x00280051, 0x0028135A, 0x00189445,
    0x00181063,
    0x00181065, 0x0008002A, 0x00080201, 0x00280014, 0x00280034, 0x00281052, 0x00281053, 0x00281050,
    0x00281051,
    0x00180086, 0x0040A043, 0x0040A040, 0x00420010, 0x00420011, 0x00280120, 0x00280121,
})  # fmt: skip
"""Attributes that readers need in order to read the file, which are never overwritten with a plant."""


def _plantable(tag: int) -> bool:
    group = tag >> 16
    structure = group < 8 or group >= 0x7FE0 or group % 2 or tag & 0xFFFF == 0
    return not structure and tag not in NEEDED


@cache
def pool(is_listed: bool) -> dict[str, tuple[int, ...]]:
    """VR -> tags that may be planted in, listed in the table or not."""
    found: dict[str, list[int]] = defaultdict(list)
    for tag in _tags():
        if _plantable(tag) and (tag in listed()) == is_listed:
            found[vr_of(tag)].append(tag)
    return {vr: tuple(tags) for vr, tags in found.items()}


def _tags() -> Iterator[int]:
    yield from sorted({*DicomDictionary, *NEWER})
