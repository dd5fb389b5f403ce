"""Table E.1-1 row by row: what a tool did with each listed attribute, under Basic and under each option.

The codes as PS3.15 E.1.1 and Table E.1-1a define them: D: a non-zero length value that isn't the original's;
Z: zero length, or as D; X: gone; K: unchanged (of a sequence: still there); C: still there or gone, but the
identifying part isn't; U: another valid UID; X/Z, X/D, Z/D, X/Z/D: what one of them would give; X/Z/U*: gone,
empty, or with its instance UIDs replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from benchmarks.deidentification.leaks import FAULTS
from benchmarks.deidentification.objects import invent
from benchmarks.deidentification.standard import Row, rows, vr_of

NEST = 0x0040A170
"""PurposeOfReferenceCodeSequence: in no table, and known to every dictionary."""
TIMEZONE = 0x00080201
NAME = "Zvoukelainth"
"""The identifying word that stands in each planted text."""
SETS_ANEW = frozenset({0x00120063, 0x00120064})
"""Written by the de-identifier itself at the top level (PS3.15 E.1.1)."""
DAY = "19870314"
VALID: dict[int, Any] = {
    0x00080201: "+0900", 0x00100040: "F", 0x00102203: "ALTERED", 0x001021A0: "YES", 0x00101010: "067Y",
    0x00101020: "1.72", 0x00101030: "70.5", 0x00102160: "Korean", 0x00102162: "Korean",
    0x00340007: bytes(range(1, 9)), 0x04000310: bytes(range(0x80, 0xA0)),
}  # fmt: skip
"""Attributes that hold few values or a form of their own: a valid one, so that K has something to keep."""


@dataclass(frozen=True)
class Verdict:
    """One row's outcome: `right`, and in words what is there instead of what."""

    tag: str
    code: str
    right: bool
    found: str


def probes(folder: Path) -> None:
    """Write the two files: all rows at the top level, all rows inside an item of an unlisted sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, nested in (("top.dcm", False), ("nested.dcm", True)):
        buffer = BytesIO()
        probe(nested).save_as(buffer, enforce_file_format=True)
        (folder / name).write_bytes(buffer.getvalue())


def probe(nested: bool) -> Dataset:
    from random import Random

    made = invent("CT", Random(5))
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.410.1.7")
    made.StudyInstanceUID, made.SeriesInstanceUID = UID("1.2.410.1.8"), UID("1.2.410.1.9")
    made.PatientName, made.PatientID = "Kalainth^Ouvo", "PAT-55231"
    place = made
    if nested:
        place = Dataset()
        made[NEST] = DataElement(NEST, "SQ", Sequence([place]))
    for row in rows():
        for tag, vr in _tags(row):
            place[tag] = DataElement(tag, vr, planted(tag, vr))
    place.private_block(0x0033, "ZV TEST", create=True).add_new(1, "LO", NAME)
    return made


def _tags(row: Row) -> Iterator[tuple[int, str]]:
    """Where the row is planted; nothing for command and file header attributes, which no data set holds."""
    if row.number is None:
        yield from {
            "50xxxxxx": [(0x50003000, "OW")],
            "60xx3000": [(0x60003000, "OW")],
            "60xx4000": [(0x60004000, "LT")],
        }.get(row.tag, [])
    elif row.number >> 16 >= 8 and row.number < 0xFFFA0000:
        yield row.number, vr_of(row.number) if vr_of(row.number) != "OB or OW" else "OW"
    elif row.number >= 0xFFFA0000:
        yield row.number, vr_of(row.number)


def planted(tag: int, vr: str) -> Any:
    """A valid value that identifies and differs from every other row's."""
    if tag in VALID:
        return VALID[tag]
    number = tag % 9973
    if vr == "SQ":
        item = Dataset()
        item.ReferencedSOPInstanceUID = UID(f"1.2.410.3.{tag}")
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D1100", "SRT", f"{NAME} head"
        return Sequence([item])
    values = {
        "DA": DAY, "TM": f"{number % 24:02}1527.25", "DT": f"{DAY}1015{number % 60:02}", "AS": "067Y",
        "IS": str(10000 + number),
        "DS": f"{number}.5", "UI": f"1.2.410.2.{tag}", "US": number, "AT": 0x00100010,
        "AE": f"ZVOUKEL{number}",
        "CS": f"ZVOUKEL{number}", "UR": f"https://{NAME.lower()}.example/{number}",
        "PN": f"Kalainth^{number}", "SH": f"Zvouke{number}",
    }  # fmt: skip
    if vr in ("OB", "OW", "UN", "OF"):
        return f"{NAME} {number:06} ".encode().ljust(24)
    if vr in ("FD", "FL"):
        return float(number) + 0.5
    return values.get(vr, f"chest {NAME}{number}" if vr in ("ST", "LT", "UT") else f"{NAME}{number}")


def judge(before: Dataset, after: Dataset, option: str | None, nested: bool) -> list[Verdict]:
    """Every row's outcome; rows for the file header and commands are looked for where they could be."""
    source = before[NEST].value[0] if nested else before
    held = after.get_item(NEST)
    target = (
        after[NEST].value[0]
        if nested and held is not None and after[NEST].value
        else None
        if nested
        else after
    )
    verdicts = []
    for row in rows():
        code = row.code(option)
        if row.tag == "PRIVATE":
            there = [] if target is None else [tag for tag in target.keys() if tag.is_private]  # noqa: SIM118
            verdicts.append(Verdict(row.tag, code, not there, "private left" if there else "gone"))
            continue
        for tag, vr in _tags(row):
            right, found = outcome(code, tag, vr, source, target, option)
            if tag in SETS_ANEW and not nested:
                right = right or target is not None
            verdicts.append(Verdict(row.tag, code, right, found))
        if not list(_tags(row)):
            verdicts.append(Verdict(row.tag, code, *_header(row, before, after, code)))
    return verdicts


def _header(row: Row, before: Dataset, after: Dataset, code: str) -> tuple[bool, str]:
    """Command attributes may not be in a file; the header's instance UID is that of the data set."""
    if row.number == 0x00020003:
        found = after.file_meta.get("MediaStorageSOPInstanceUID", "")
        same = found == before.file_meta.MediaStorageSOPInstanceUID
        return (same if code == "K" else bool(found) and not same), "kept" if same else "another"
    there = row.number in after
    return not there, "there" if there else "gone"


def outcome(
    code: str, tag: int, vr: str, source: Dataset, target: Dataset | None, option: str | None
) -> tuple[bool, str]:
    """Whether the code was followed, and what was found."""
    if target is None:
        return False, "the item is gone"
    if tag not in target:
        return "X" in code or code == "C", "gone"
    try:
        old, new = source[tag].value, target[tag].value
    except FAULTS as error:
        return False, type(error).__name__
    if vr == "SQ":
        return _sequence(code, new, option)
    if new is None or (hasattr(new, "__len__") and not len(new)):
        return "Z" in code or (code == "C" and vr not in ("DA", "DT", "TM")), "empty"
    if new == old:
        return code == "K" or (code == "C" and (vr == "TM" or tag == TIMEZONE)), "unchanged"
    if code == "C":
        return NAME.lower() not in str(new).lower(), "cleaned"
    if "U" in code:
        return UID(new).is_valid, "another UID"
    return "Z" in code or "D" in code, "replaced"


def _sequence(code: str, new: Any, option: str | None) -> tuple[bool, str]:
    if not new:
        return "Z" in code or code == "C", "empty"
    text = str(new)
    if NAME in text or ("1.2.410.3." in text and option != "uids"):
        return False, "items with what was planted"
    if code == "X":
        return False, "there"
    return True, "items"


def read(path: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(path, force=True)
    except FAULTS:
        return None
