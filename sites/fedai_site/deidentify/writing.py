"""A data set as the bytes of a DICOM file (PS3.10), values passed through as they are stored.

Attributes that are raw already cost a header each; what others have changed since is encoded by pydicom.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from pydicom import dcmwrite
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from fedai_site.deidentify.table import standard_vr

LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OW", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"})
PADDED_WITH_ZERO = frozenset({"UI", "OB", "OW", "OF", "OD", "OL", "OV", "UN"})
UNDEFINED = 0xFFFFFFFF
LONGEST_SHORT = 0xFFFF
ITEM, DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
PREFIX = bytes(128) + b"DICM"
VERSION = struct.pack("<HH2sHI2s", 2, 1, b"OB", 0, 2, b"\0\1")  # of the file meta
PIXEL_DATA = 0x7FE00010
UTF_8 = "utf8"


def file_bytes(dataset: Dataset) -> bytes:
    """The data set with its file meta, behind a preamble of zeros. Raises what pydicom raises (FAULTS)."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    if _is_encoded_otherwise(dataset, implicit, little):
        return _by_pydicom(dataset)
    body = Encoder(implicit, little).dataset(dataset)
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = b"".join([*(packer.compress(chunk) for chunk in body), packer.flush()])
        body = [packed + bytes(len(packed) % 2)]
    return b"".join([PREFIX, *_meta(dataset), *body])


def _is_encoded_otherwise(dataset: Dataset, implicit: bool, little: bool) -> bool:
    was_implicit, was_little = dataset.original_encoding
    return (was_implicit, was_little) != (implicit, little) and was_little is not None


def _by_pydicom(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.preamble = bytes(128)
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _meta(dataset: Dataset) -> list[bytes]:
    chunks = [VERSION, *Encoder(False, True).dataset(dataset.file_meta)]
    length = sum(len(chunk) for chunk in chunks)
    return [struct.pack("<HH2sHI", 2, 0, b"UL", 4, length), *chunks]


class Encoder:
    """Encodes data sets in one of the three ways (implicit or explicit VR, little or big endian)."""

    def __init__(self, implicit: bool, little: bool) -> None:
        order = "<>"[not little]
        self.implicit, self.little = implicit, little
        self._implicit = struct.Struct(order + "HHI").pack
        self._short = struct.Struct(order + "HH2sH").pack
        self._long = struct.Struct(order + "HH2sHI").pack

    def dataset(self, dataset: Dataset) -> list[bytes]:
        """The attributes in the order of their tags, as chunks of bytes."""
        chunks: list[bytes] = []
        for tag, element in sorted(dataset.items(), key=_number):
            if tag & 0xFFFF and (tag >> 16 != 2 or tag & 0xFFFF > 1):
                self._element(int(tag), element, dataset, chunks)
        return chunks

    def _element(
        self, tag: int, element: DataElement | RawDataElement, dataset: Dataset, chunks: list[bytes]
    ) -> None:
        if isinstance(element, RawDataElement):
            vr = element.VR or standard_vr(tag) or "UN"
            if element.is_little_endian == self.little or vr not in _SWAPPED:
                self._raw(tag, vr, element.value or b"", element.length == UNDEFINED, chunks)
                return
            element = dataset[tag]
        if element.VR == "SQ" and isinstance(element.value, Sequence):
            items = b"".join(self.items(element.value))
            chunks += (self._header(tag, "SQ", len(items)), items)
        else:
            chunks.append(self._by_pydicom(element, dataset))

    def items(self, sequence: Sequence) -> list[bytes]:
        """The items of a sequence, each with its length, one chunk each."""
        found = []
        for item in sequence:
            body = b"".join(self.dataset(item))
            found.append(self._implicit(*ITEM, len(body)) + body)
        return found

    def _raw(self, tag: int, vr: str, value: bytes, is_encapsulated: bool, chunks: list[bytes]) -> None:
        if is_encapsulated and tag == PIXEL_DATA:
            chunks += (self._header(tag, vr, UNDEFINED), value, self._implicit(*DELIMITER, 0))
            return
        if len(value) % 2:
            value += b"\0" if vr in PADDED_WITH_ZERO else b" "
        chunks += (self._header(tag, vr, len(value)), value)

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        if self.implicit:
            return self._implicit(tag >> 16, tag & 0xFFFF, length)
        if vr in LONG_VRS:
            return self._long(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), 0, length)
        if length > LONGEST_SHORT:  # PS3.5 6.2.2, note 6
            return self._long(tag >> 16, tag & 0xFFFF, b"UN", 0, length)
        return self._short(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), length)

    def _by_pydicom(self, element: DataElement, dataset: Dataset) -> bytes:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = self.little, self.implicit
        if element.VR and " or " in element.VR:
            element = correct_ambiguous_vr_element(element, dataset, self.little)
        write_data_element(buffer, element, UTF_8)
        return bytes(buffer.getvalue())


_SWAPPED = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OW", "OF", "OD", "OL", "OV"})
"""Representations whose bytes depend on the byte order."""


def _number(pair: tuple[Any, Any]) -> int:
    return int(pair[0])
