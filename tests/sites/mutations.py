"""Ways to break a DICOM file, each by a seed: where it is cut, which bytes are flipped, which lengths lie."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from random import Random

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

Mutation = Callable[[bytes, Random], bytes]
HEADER = re.compile(
    rb"[\x00-\xff][\x00-\x7f][\x00-\xff]{2}(?:LO|SH|PN|SQ|UN|OB|OW|UI|DA|CS|UT|US)", re.DOTALL
)
VRS = (
    b"AE",
    b"AT",
    b"CS",
    b"DS",
    b"FD",
    b"IS",
    b"LO",
    b"OB",
    b"OW",
    b"PN",
    b"SQ",
    b"UI",
    b"UN",
    b"US",
    b"UT",
    b"ZZ",
)
LENGTHS = (0, 1, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def truncated(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def flipped(data: bytes, random: Random) -> bytes:
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 20, 200))):
        made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def flipped_in_header(data: bytes, random: Random) -> bytes:
    made = bytearray(data)
    for _ in range(random.choice((1, 2, 5))):
        made[random.randrange(128, min(len(made), 6000))] = random.randrange(256)
    return bytes(made)


def false_length(data: bytes, random: Random) -> bytes:
    """The length of some attribute, in whichever of the two forms its representation has."""
    made, at = bytearray(data), _header(data, random)
    if bytes(made[at + 4 : at + 6]) in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        struct.pack_into("<I", made, at + 8, random.choice(LENGTHS))
    else:
        struct.pack_into("<H", made, at + 6, random.choice(LENGTHS) & 0xFFFF)
    return bytes(made)


def wrong_representation(data: bytes, random: Random) -> bytes:
    made, at = bytearray(data), _header(data, random)
    made[at + 4 : at + 6] = random.choice(VRS)
    return bytes(made)


def without_a_piece(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randrange(1, 400) :]


def with_a_piece_twice(data: bytes, random: Random) -> bytes:
    """Some attributes again, after themselves or elsewhere: duplicates, wrong order."""
    start, end = sorted((_header(data, random), _header(data, random)))
    where = random.choice((end, _header(data, random)))
    return data[:where] + data[start:end] + data[where:]


def without_delimiters(data: bytes, random: Random) -> bytes:
    return re.sub(rb"\xfe\xff[\x0d\xdd]\xe0\x00\x00\x00\x00", b"", data, count=random.choice((0, 1, 3)))


def group_lengths(data: bytes, random: Random) -> bytes:
    """The file header's length is a lie; others are put before groups where none should be."""
    made = bytearray(data)
    struct.pack_into("<I", made, 140, random.choice(LENGTHS))
    lie = b"\x08\x00\x00\x00UL\x04\x00" + struct.pack("<I", random.choice(LENGTHS))
    at = _header(data, random)
    return bytes(made[:at]) + lie + bytes(made[at:])


def another_syntax(data: bytes, random: Random) -> bytes:
    """The transfer syntax says one thing and the data set is another."""
    syntaxes = (
        b"1.2.840.10008.1.2",
        b"1.2.840.10008.1.2.2",
        b"1.2.840.10008.1.2.1.99",
        b"1.2.840.10008.1.2.4.90",
        b"9.9",
    )
    old = re.search(rb"UI(..)(1\.2\.840\.10008\.1\.2[.0-9]*\x00?)", data[132:2000], re.DOTALL)
    if old is None:
        return data
    return data.replace(old.group(2), random.choice(syntaxes).ljust(len(old.group(2)), b"\0"), 1)


def another_character_set(data: bytes, random: Random) -> bytes:
    made = random.choice((b"ISO_IR 999", b"ISO 2022 IR 87\\", b"\x1b$B", b"GB18030\\ISO_IR 192", b"utf-16"))
    at = data.find(b"\x08\x00\x05\x00CS", 132)
    if at < 0:
        return data
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    return data[: at + 8] + made[:length].ljust(length) + data[at + 8 + length :]


def _header(data: bytes, random: Random) -> int:
    found = [match.start() for match in HEADER.finditer(data, 132, len(data) - 12)]
    return random.choice(found) if found else min(200, len(data) - 16)


MUTATIONS: tuple[Mutation, ...] = (
    truncated, flipped, flipped_in_header, false_length, wrong_representation, without_a_piece,
    with_a_piece_twice, without_delimiters, group_lengths, another_syntax, another_character_set,
)  # fmt: skip


def nested(levels: int, *, defined: bool, private: bool = False) -> bytes:
    """Explicit little endian items within items; lengths defined (from the inside out) or undefined."""
    tag = b"\x09\x00\x01\x10" if private else b"\x08\x00\x40\x11"
    if defined:
        inner = b""
        for _ in range(levels):
            item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
            inner = tag + b"SQ\0\0" + struct.pack("<I", len(item)) + item
        return inner
    begin = tag + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return begin * levels + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * levels


def with_bytes(data: bytes, more: bytes) -> bytes:
    """A file with raw bytes after its last attribute."""
    return data + more


def bomb(megabytes: int, header: bytes = b"") -> bytes:
    """A deflated file whose private attribute unfolds to zeros; `header` goes where its data set begins."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.7"), UID("1.2.3")
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, item, enforce_file_format=True)
    start = 144 + int.from_bytes(buffer.getvalue()[140:144], "little")
    plain = zlib.decompress(buffer.getvalue()[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(plain + b"\x09\x00\x01\x10OB\0\0" + struct.pack("<I", megabytes << 20))
    packed += packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return buffer.getvalue()[:start] + header + packed + piece * megabytes + packer.flush()
