"""What compressed pixels carry beside the picture: comments, application segments, thumbnails, bytes after an
image's end or between its parts, words in offset tables. Decoders ignore all of that.

It is overwritten with zeros in place, so that no length, offset or pixel changes; an offset table that isn't
one becomes empty. What a stream is, its own first bytes say and not the transfer syntax; the fragments of a
frame are one stream. ITU-T T.81 B.1.1, T.87, T.800 A.2; DICOM PS3.5 A.4, G.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

from fedai_site.deidentify import runlength
from fedai_site.quarantine import Quarantine, Reason

JPEG_FAMILY = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.8")
JPEG_2000_FAMILY = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
RLE = "1.2.840.10008.1.2.5"
SOI, EOI, SOS, SOC, SOT, SOD = 0xFFD8, 0xFFD9, 0xFFDA, 0xFF4F, 0xFF90, 0xFF93
COMMENT, JPEG_2000_COMMENT = 0xFFFE, 0xFF64
APPLICATION = range(0xFFE0, 0xFFF0)
NEEDED = ((0xFFE0, b"JFIF\0", 14), (0xFFE8, b"mrfx", 5), (0xFFE8, b"SPIFF\0", 30), (0xFFEE, b"Adobe", 12))
"""(marker, how its content begins, bytes of it that decoders use)"""
AFTER_ENTROPY = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""A marker that ends entropy-coded data: neither stuffing nor a restart (T.81 B.1.1.5; T.87 stuffs a bit)."""
ENCODERS = re.compile(
    rb"(?:(?:Created by|Creator:|LEAD Technologies Inc\.|MATLAB JPEG 2000)[ ]?)?(?:GDCM/)?"
    rb"(?:OpenJPEG|JasPer|Kakadu|IJG|Aware|CharLS|libjpeg(?:-turbo)?)?"
    rb"(?:[- ]?(?:v|version |Version )?[0-9]{1,4}(?:\.[0-9]{1,4}){0,3})?[\0 ]*"
)
"""What encoders write about themselves: name and version, no room for anybody's."""
ITEM = b"\xfe\xff\x00\xe0"
Span = tuple[int, int]
Search = Callable[[bytes], Iterator[Span]]


def without_comments(value: bytes, transfer_syntax: str, pixels: int = 0) -> tuple[bytes, int]:
    """The items of an encapsulated pixel element without what decoders ignore, and how much was overwritten.

    `pixels`: rows times columns, by which the end of run-length data is known. Raises Quarantine for streams
    of an unknown kind.
    """
    searches = _searches(transfer_syntax, pixels)
    if not searches:
        return value, 0
    value, count = _checked_table(value)
    spans: list[Span] = []
    for fragments in _frames(value, searches):
        stream = b"".join(value[start:end] for start, end in fragments)
        search = next((found for magic, found in searches if stream.startswith(magic)), None)
        if search is None:
            raise Quarantine(Reason.SUSPICIOUS_CONTENT, "compressed pixels of an unknown kind")
        telling = (span for span in search(stream) if not ENCODERS.fullmatch(stream, *span))
        for span in telling:
            count += 1
            spans += _placed(span, fragments)
    return _overwritten(value, spans), count


def streams(value: bytes, transfer_syntax: str, pixels: int = 0) -> int:
    """How many pictures an encapsulated pixel element holds, whatever the header says; 0 if not known."""
    searches = _searches(transfer_syntax, pixels)
    return sum(1 for _ in _frames(value, searches)) if searches else 0


def _searches(transfer_syntax: str, pixels: int) -> tuple[tuple[bytes, Search], ...]:
    """(first bytes, search) of the kinds of stream that may stand under a transfer syntax."""
    if transfer_syntax.startswith(JPEG_FAMILY + JPEG_2000_FAMILY):
        return ((b"\xff\xd8", _in_jpeg), (b"\xff\x4f", _in_jpeg_2000))
    is_known = transfer_syntax == RLE and pixels > 0
    return ((b"", partial(runlength.hidden, pixels=pixels)),) if is_known else ()


def items(value: bytes) -> list[Span]:
    """Start and end of each item's content, the offset table's first."""
    found, at = [], 0
    while value[at : at + 4] == ITEM:
        start = at + 8
        at = start + int.from_bytes(value[at + 4 : start], "little")
        found.append((start, min(at, len(value))))
    return found


def are_offsets(raw: bytes, size: int, found: list[Span]) -> bool:
    """Whether the bytes are offsets of items, little endian, `size` bytes each."""
    if len(raw) % size or len(found) < 2:
        return False
    first = found[1][0] - 8
    places = {start - 8 - first for start, _ in found[1:]}
    offsets = [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
    return offsets[:1] == [0] and places.issuperset(offsets) and all(a < b for a, b in pairwise(offsets))


def _checked_table(value: bytes) -> tuple[bytes, int]:
    """The value, with an empty offset table in the place of one that holds anything but offsets."""
    found = items(value)
    if not found or found[0][0] == found[0][1] or are_offsets(value[slice(*found[0])], 4, found):
        return value, 0
    return ITEM + bytes(4) + value[found[0][1] :], 1


def _frames(value: bytes, searches: tuple[tuple[bytes, Search], ...]) -> Iterator[list[Span]]:
    """Fragments that make up one stream: from one that begins as a stream does to the next such."""
    fragments: list[Span] = []
    for start, end in items(value)[1:]:
        begins = any(value.startswith(magic, start) for magic, _ in searches)
        if begins and fragments:
            yield fragments
            fragments = []
        fragments.append((start, end))
    if fragments:
        yield fragments


def _placed(span: Span, fragments: list[Span]) -> Iterator[Span]:
    """A span of the stream as spans of the element."""
    before = 0
    for start, end in fragments:
        low, high = max(span[0] - before, 0), min(span[1] - before, end - start)
        if low < high:
            yield start + low, start + high
        before += end - start


def _overwritten(value: bytes, spans: list[Span]) -> bytes:
    if not spans:
        return value
    changed = bytearray(value)
    for start, end in spans:
        changed[start:end] = bytes(end - start)
    return bytes(changed)


def _number(stream: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(stream[at : at + size], "big")


def _tail(stream: bytes, at: int) -> Iterator[Span]:
    if stream[at:].strip(b"\0\xff"):
        yield at, len(stream)


def _in_jpeg(stream: bytes) -> Iterator[Span]:
    """All marker segments from SOI to EOI, those between scans too, and what follows."""
    at = 2
    while at + 2 <= len(stream):
        marker = _number(stream, at)
        if marker == 0xFFFF or marker == EOI:
            if marker == EOI:
                yield from _tail(stream, at + 2)
                return
            at += 1  # a fill byte
            continue
        if marker >> 8 != 0xFF or marker < 0xFF80:
            raise Quarantine(Reason.SUSPICIOUS_CONTENT, "bytes between a stream's segments")
        after = at + 2 + max(2, _number(stream, at + 2))
        yield from _in_segment(stream, marker, at + 4, min(after, len(stream)))
        at = _after_scan(stream, after) if marker == SOS else after


def _in_segment(stream: bytes, marker: int, start: int, end: int) -> Iterator[Span]:
    """A comment, or what decoders don't use of an application segment."""
    if marker == COMMENT or marker in APPLICATION:
        for needed, begin, size in NEEDED:
            if marker == needed and stream.startswith(begin, start):
                start += size
                break
        if stream[start:end].strip(b"\0"):
            yield start, end


def _after_scan(stream: bytes, at: int) -> int:
    found = AFTER_ENTROPY.search(stream, at)
    return found.start() if found else len(stream)


def _in_jpeg_2000(stream: bytes) -> Iterator[Span]:
    """Comments of the main header and of each tile-part's header, and what follows the end."""
    at, next_tile_part = 2, len(stream)
    while at + 2 <= len(stream) and (marker := _number(stream, at)) != EOI:
        if marker == SOD:
            at = next_tile_part
            continue
        if marker >> 8 != 0xFF:
            raise Quarantine(Reason.SUSPICIOUS_CONTENT, "bytes between a stream's segments")
        if marker == SOT:
            next_tile_part = at + _number(stream, at + 6, 4) if _number(stream, at + 6, 4) else _end(stream)
        after = at + 2 + max(2, _number(stream, at + 2))
        if marker == JPEG_2000_COMMENT and stream[at + 6 : after].strip(b"\0"):
            yield at + 6, min(after, len(stream))
        at = after
    yield from _tail(stream, at + 2)


def _end(stream: bytes) -> int:
    """The first end-of-codestream: no data of a tile holds a marker above 0xFF8F (T.800 B.10.1)."""
    found = stream.find(b"\xff\xd9")
    return found if found >= 0 else len(stream)
