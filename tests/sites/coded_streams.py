"""JPEG and JPEG 2000 streams, written segment by segment, for the tests of what hides in them."""

from __future__ import annotations

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    """A marker, its length, its content."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def quantization(number: int, fill: int = 1) -> bytes:
    """One table of DQT."""
    return bytes([number]) + bytes([fill]) * 64


def huffman(kind: int, values: bytes = b"\x00\x01") -> bytes:
    """One table of DHT: `kind` is class and number; two codes of two bits."""
    return bytes([kind, 0, len(values), *[0] * 14]) + values


def frame(rows: int = 16, columns: int = 16, marker: int = 0xC0) -> bytes:
    """A frame header of one component."""
    return segment(
        marker, b"\x08" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    )


SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
TABLES = segment(0xDB, quantization(0)) + segment(0xC4, huffman(0x00)) + segment(0xC4, huffman(0x10))


def jpeg(*before: bytes, scan: bytes = b"\x12\x34", after: bytes = b"", tables: bytes = TABLES) -> bytes:
    """A baseline stream with extra segments before its frame and bytes after its end."""
    return SOI + b"".join(before) + tables + frame() + SCAN + scan + EOI + after


def size_of_image(width: int = 16, height: int = 16) -> bytes:
    """SIZ of one component in one tile."""
    sides = b"".join(number.to_bytes(4, "big") for number in (width, height, 0, 0, width, height, 0, 0))
    return segment(0x51, b"\0\0" + sides + b"\0\x01\x07\x01\x01")


def tile_part(header: bytes = b"", data: bytes = b"\xab\xcd", number: int = 0, part: int = 0) -> bytes:
    """One part of a tile with its length."""
    length = 12 + len(header) + 2 + len(data)
    start = number.to_bytes(2, "big") + length.to_bytes(4, "big") + bytes([part, 1])
    return segment(0x90, start) + header + b"\xff\x93" + data


CODING = segment(0x52, b"\x00\x00\x00\x01\x00\x00\x04\x04\x00\x01")
QUANTIZATION = segment(0x5C, b"\x40\x40")


def jpeg_2000(*before: bytes, parts: bytes | None = None, after: bytes = b"") -> bytes:
    """A codestream with extra segments in its main header."""
    header = size_of_image() + CODING + QUANTIZATION + b"".join(before)
    return b"\xff\x4f" + header + (tile_part() if parts is None else parts) + EOI + after
