"""Bytes of a file -> data set, from memory and without trusting a single length in them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from fedai_site.deidentify.iod import iod
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.table import standard_vr
from fedai_site.quarantine import Quarantine, Reason

MAXIMUM_BYTES = 2 << 30
DEFLATED = b"1.2.840.10008.1.2.1.99"
PIXEL_DATA = 0x7FE00010
MOST_ATTRIBUTES = 100_000
"""Of the data set itself; the standard has some 5,000."""
DENSEST, UNFOLDED = 200, 64 << 20
"""Deflated data sets may unfold to so many times their length, and to so many bytes in any case."""
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Representations with a length of four bytes (PS3.5 7.1.2)."""
UNDEFINED = 0xFFFFFFFF
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    BytesLengthException,
    struct.error,
    zlib.error,
)
"""What pydicom may raise for a broken data set. It works in memory, so OSError is never the disk's."""


def parse(data: bytes) -> Dataset:
    """The data set of a DICOM file, with or without preamble and file meta.

    Raises Quarantine for what isn't DICOM, can't be parsed, ends too early or unfolds to too much.
    """
    with silenced():
        try:
            dataset = read(data)
            check_complete(dataset)
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None
    return dataset


def read(data: bytes) -> Dataset:
    """Parsed from memory, so that a length that the file only claims can't ask for more than the file has."""
    if len(data) > MAXIMUM_BYTES:
        raise Quarantine(Reason.TOO_LARGE)
    is_part_10 = data[128:132] == b"DICM"
    if not is_part_10 and not _starts_like_a_data_set(data):
        raise Quarantine(Reason.NOT_DICOM)
    meta = 132 if is_part_10 else 0
    end = _end_of_meta(data, meta)
    if DEFLATED in data[meta:end]:
        _check_deflated(data, end)
    try:
        dataset = read_partial(BytesIO(data), stop_when=_End(), force=not is_part_10)
    except InvalidDicomError:
        raise Quarantine(Reason.NOT_DICOM) from None
    _drop_trailer(dataset)
    return dataset


class _End:
    """Says when the data set is over: nothing that is kept follows the pixels, only signatures and padding.

    So whatever else stands behind them isn't even parsed. Raises Quarantine for more attributes than any
    object has, before they cost time.
    """

    def __init__(self) -> None:
        self.has_pixels = False
        self.attributes = 0

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if self.has_pixels:
            return True
        self.attributes += 1
        if self.attributes > MOST_ATTRIBUTES:
            raise Quarantine(Reason.TOO_LARGE, "more attributes than any object has")
        self.has_pixels = tag == PIXEL_DATA
        return False


def _drop_trailer(dataset: Dataset) -> None:
    """Drop a last element that is longer than the file and that the Standard doesn't know: bytes that were
    appended, not an attribute that was cut. An object that should have pixels and has none was cut.
    """
    if not any(tag in dataset for tag in PIXELS) and _has_pixels(str(dataset.get("SOPClassUID", ""))):
        return
    last = max((item for item in dataset.values() if _is_cut(item)), key=_position, default=None)
    if last is None or standard_vr(last.tag) or _has_creator(dataset, last.tag):
        return
    if all(_position(item) <= last.value_tell for item in dataset.values()):
        del dataset[last.tag]


def _has_pixels(sop_class: str) -> bool:
    """Whether objects of this class always have pixels, as those of an unknown class are taken to have."""
    return any(iod(sop_class).type(tag) in ("1", "1C") for tag in PIXELS)


def _has_creator(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether a private attribute belongs to a block that the object has."""
    return tag.is_private and (tag & 0xFFFF < 0x100 or tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8 in dataset)


def _position(element: Any) -> int:
    return int(getattr(element, "value_tell", 0) or 0)


def _is_cut(element: Any) -> bool:
    if not isinstance(element, RawDataElement) or element.length == UNDEFINED:
        return False
    return bool(len(element.value or b"") < element.length)


def check_complete(dataset: Dataset) -> None:
    """Raises Quarantine if an attribute has fewer bytes than it says."""
    for element in dataset.values():
        is_cut = (
            isinstance(element, RawDataElement) and len(element.value or b"") < element.length != UNDEFINED
        )
        if is_cut:
            raise Quarantine(Reason.TRUNCATED)


def _starts_like_a_data_set(data: bytes) -> bool:
    """Old files without preamble begin with an attribute of group 0002 or 0008, in either byte order."""
    little, big = data[:2] in (b"\x08\0", b"\x02\0"), data[:2] in (b"\0\x08", b"\0\x02")
    if not (little or big) or len(data) < 12:
        return False
    is_explicit = data[4:6].isalpha() and data[4:6].isupper()
    length = int.from_bytes(data[4:8], "little" if little else "big")
    return is_explicit or length <= 1024


def _end_of_meta(data: bytes, at: int) -> int:
    """Where the file meta ends: with the last attribute of group 2, whatever the group's length says."""
    while data[at : at + 2] == b"\x02\0":
        is_long = data[at + 4 : at + 6] in LONG
        at += (
            12 + int.from_bytes(data[at + 8 : at + 12], "little")
            if is_long
            else 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        )
    return min(at, len(data))


def _check_deflated(data: bytes, start: int) -> None:
    """A deflated data set may not unfold to more than is read in one piece, nor to what no data set does."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, data[start:]
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 1 << 24))
        rest = inflater.unconsumed_tail
        if size > MAXIMUM_BYTES or size > DENSEST * len(data) + UNFOLDED:
            raise Quarantine(Reason.TOO_LARGE)
