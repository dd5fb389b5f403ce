"""Media directories (DICOMDIR, PS3.3 F.5): records are cleaned like any items, and the offsets by which they
point to each other are computed anew.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from fedai_site.deidentify import reading
from fedai_site.deidentify.known import bytes_of
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.writing import Encoder, file_bytes
from fedai_site.quarantine import Quarantine

SOP_CLASS = "1.2.840.10008.1.3.10"
RECORDS = 0x00041220
NEXT, LOWER, REFERENCED = 0x00041400, 0x00041420, 0x00041504
TYPES: dict[int, str] = {
    **dict.fromkeys(
        (0x00100020, 0x00080020, 0x00080030, 0x00200010, 0x00080060, 0x00200011, 0x00200013), "1"
    ),
    **dict.fromkeys((0x0020000D, 0x0020000E, 0x00041500, 0x00041510, 0x00041511, 0x00041512), "1C"),
    **dict.fromkeys((0x00100010, 0x00081030, 0x00080050), "2"),
}
"""Types of the keys of patient, study, series and image records (PS3.3 F.5)."""
FIRST, LAST = 0x00041200, 0x00041202
LONGEST_BYTES = 256 << 20
FAULTS: tuple[type[Exception], ...] = (Quarantine, *reading.FAULTS)


def is_directory(dataset: Dataset, sop_class: str) -> bool:
    """Whether the object lists files instead of being one."""
    return sop_class == SOP_CLASS or RECORDS in dataset


def listed_files(path: Path) -> list[tuple[str, ...]]:
    """The files that a media directory lists (ReferencedFileID), as parts of paths below its folder.

    Nothing for one that can't be read, which the quarantine tells by itself; parts that could lead elsewhere
    are left out.
    """
    try:
        if path.stat().st_size > LONGEST_BYTES:
            return []
        with silenced():
            records = reading.read(path.read_bytes()).get(RECORDS)
            listed = [record.get("ReferencedFileID") for record in records.value] if records else []
            return [parts for one in listed if one and (parts := _parts(one))]
    except FAULTS:
        return []


def _parts(identifier: object) -> tuple[str, ...]:
    """The components of a file id (PS3.10 8.2): capitals, digits and underscores; others are let pass."""
    parts = (identifier,) if isinstance(identifier, str) else tuple(map(str, identifier))  # type: ignore[call-overload]
    bad = any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in parts)
    return () if bad else parts


def relink(clean: Dataset, original: Dataset) -> None:
    """Set all offsets in the clean directory to where its records will lie once it is written."""
    records = clean[RECORDS].value if RECORDS in clean else Sequence([])
    old = {
        int(getattr(item, "seq_item_tell", 0) or 0): number
        for number, item in enumerate(original[RECORDS].value if RECORDS in original else [])
    }
    syntax = UID(clean.file_meta.TransferSyntaxUID)
    encoder = Encoder(syntax.is_implicit_VR, syntax.is_little_endian)
    sizes = [len(item) for item in encoder.items(records)]
    start = len(file_bytes(clean)) - sum(sizes) - _size_after(clean, encoder)
    new = [start + sum(sizes[:number]) for number in range(len(sizes))]
    for item, tags in ((clean, (FIRST, LAST)), *((record, (NEXT, LOWER, REFERENCED)) for record in records)):
        for tag in tags:
            if tag in item:
                number = old.get(_offset(item, tag, encoder.little))
                _set(item, tag, 0 if number is None else new[number], encoder)


def _size_after(clean: Dataset, encoder: Encoder) -> int:
    after = Dataset({tag: element for tag, element in clean.items() if tag > RECORDS})
    return sum(len(chunk) for chunk in encoder.dataset(after))


def _offset(item: Dataset, tag: int, little: bool) -> int:
    raw = bytes_of(item.get_item(tag), little)
    return int(struct.unpack("<>"[not little] + "I", raw)[0]) if len(raw) == 4 else 0


def _set(item: Dataset, tag: int, offset: int, encoder: Encoder) -> None:
    value = struct.pack("<>"[not encoder.little] + "I", offset)
    item[tag] = RawDataElement(BaseTag(tag), "UL", 4, value, 0, encoder.implicit, encoder.little)
