"""What a JPEG or JPEG-LS stream carries beside the picture (ITU-T T.81 B, T.87 C): comments, application
segments, tables that no scan uses, bytes after the end.

Each is overwritten in place with as many bytes that say nothing. A stream with segments of another kind or
size, with restart markers that its interval doesn't ask for, or with a component twice, isn't looked
through by all decoders in the same way: quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from fedai_site.quarantine import Quarantine, Reason

Patch: TypeAlias = tuple[int, bytes]
"""Where in a stream, and what stands there from now on."""
EOI, SOS, DQT, DNL, DRI, LSE, COMMENT = 0xFFD9, 0xFFDA, 0xFFDB, 0xFFDC, 0xFFDD, 0xFFF8, 0xFFFE
DHT = 0xFFC4
PROGRESSIVE, LOSSLESS, JPEG_LS = 0xFFC2, 0xFFC3, 0xFFF7
FRAMES = frozenset({0xFFC0, 0xFFC1, PROGRESSIVE, LOSSLESS, JPEG_LS})
APPLICATION = range(0xFFE0, 0xFFF0)
NEEDED = ((0xFFE0, b"JFIF\0", 14), (0xFFE8, b"mrfx", 5), (0xFFE8, b"SPIFF\0", 30), (0xFFEE, b"Adobe", 12))
"""(marker, how its content begins, bytes of it that decoders use)"""
ADOBE = b"Adobe\0\x64\0\0\0\0"  # version 100, no flags; its last byte, which follows, is the colour transform
END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
END_OF_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # after 0xFF it stuffs a bit, not a byte
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
ENCODERS = re.compile(
    rb"(?:(?:Created by|Creator:|LEAD Technologies Inc\.|MATLAB JPEG 2000)[ ]?)?(?:GDCM/)?"
    rb"(?:OpenJPEG|JasPer|Kakadu|IJG|Aware|CharLS|libjpeg(?:-turbo)?)?"
    rb"(?:[- ]?(?:v|version |Version )?[0-9]{1,4}(?:\.[0-9]{1,4}){0,3})?[\0 ]*"
)
"""What encoders write about themselves: name and version, no room for anybody's."""


@dataclass(frozen=True, slots=True)
class Component:
    """Of a frame: sampling factors and the number of its quantization table."""

    across: int
    down: int
    table: int


@dataclass
class Reading:
    """What was found up to some segment. `tables`: (kind, number) -> where the one that holds now stands."""

    frame: int = 0
    rows: int = 0
    columns: int = 0
    components: dict[int, Component] = field(default_factory=dict)
    interval: int = 0
    tables: dict[tuple[int, int], int] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    selected: bytes = b""
    scanned: set[int] = field(default_factory=set)
    segments: list[tuple[int, int, list[tuple[int, int]]]] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def refuse(why: str) -> Quarantine:
    """For streams that can't be told from ones that hide something."""
    return Quarantine(Reason.SUSPICIOUS_CONTENT, why)


def hidden(stream: bytes) -> list[Patch]:
    """Patches for all that isn't the picture, from the start of the image to its end. Raises Quarantine."""
    return _read(stream).patches


def coded_ends(stream: bytes) -> list[int]:
    """Where coded data end: of each scan, and before each restart marker. Raises Quarantine."""
    return _read(stream).ends


def _read(stream: bytes) -> Reading:
    reading, at = Reading(), 2
    while at + 2 <= len(stream):
        marker = number(stream, at)
        if marker == EOI:
            reading.patches += tail(stream, at + 2)
            break
        if marker == 0xFFFF:
            at += 1  # a fill byte
            continue
        if marker >> 8 != 0xFF or marker < 0xFF80:
            raise refuse("bytes between a stream's segments")
        after = at + 2 + max(2, number(stream, at + 2))
        reading.patches += _in_segment(reading, stream, marker, at, min(after, len(stream)))
        at = _after_scan(reading, stream, after) if marker == SOS else after
    reading.patches += _unused(reading, stream)
    return reading


def number(stream: bytes, at: int, size: int = 2) -> int:
    """A big endian number."""
    return int.from_bytes(stream[at : at + size], "big")


def tail(stream: bytes, at: int) -> Iterator[Patch]:
    """What follows the end, unless it is padding."""
    if stream[at:].strip(b"\0\xff"):
        yield at, bytes(len(stream) - at)


def _in_segment(reading: Reading, stream: bytes, marker: int, at: int, end: int) -> Iterator[Patch]:
    start, size = at + 4, end - at - 4
    if marker == COMMENT or marker in APPLICATION:
        yield from _without_text(stream, marker, start, end)
    elif marker in (DQT, DHT):
        reading.segments.append((marker, at, list(_tables(reading, stream, marker, start, end))))
    elif marker in FRAMES:
        _read_frame(reading, stream, marker, start, size)
    elif marker == SOS:
        _read_scan(reading, stream, start, size)
    elif marker == DRI and size == 2:
        reading.interval = number(stream, start)
    elif not (marker == LSE and size == 11 and stream[start] == 1):
        raise refuse("a segment of a kind that no picture needs")


def _without_text(stream: bytes, marker: int, start: int, end: int) -> Iterator[Patch]:
    """A comment, or what decoders don't use of an application segment."""
    for needed, begin, size in NEEDED:
        if marker == needed and stream.startswith(begin, start) and end - start >= size:
            if begin == b"Adobe" and not stream.startswith(ADOBE, start):
                yield start, ADOBE
            start += size
            break
    if start < end and stream[start:end].strip(b"\0") and not ENCODERS.fullmatch(stream, start, end):
        yield start, bytes(end - start)


def _tables(reading: Reading, stream: bytes, marker: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each table of a segment, which holds from here on."""
    while at < end:
        of_quantization = 129 if stream[at] >> 4 else 65
        size = of_quantization if marker == DQT else 17 + sum(stream[at + 1 : at + 17])
        if at + size > end:
            raise refuse("a table that isn't as long as it says")
        reading.tables[marker, stream[at] & (0x0F if marker == DQT else 0x1F)] = at
        yield at, at + size
        at += size


def _read_frame(reading: Reading, stream: bytes, marker: int, start: int, size: int) -> None:
    count = stream[start + 5] if size > 5 else 0
    if reading.frame or size != 6 + 3 * count or not count:
        raise refuse("a frame header that isn't one")
    reading.frame, reading.rows, reading.columns = (
        marker,
        number(stream, start + 1),
        number(stream, start + 3),
    )
    for at in range(start + 6, start + size, 3):
        across, down = stream[at + 1] >> 4, stream[at + 1] & 15
        if not across or not down:
            raise refuse("a frame header that isn't one")
        reading.components[stream[at]] = Component(across, down, stream[at + 2])


def _read_scan(reading: Reading, stream: bytes, start: int, size: int) -> None:
    count = stream[start] if size > 0 else 0
    if not count or size != 4 + 2 * count or not reading.rows:
        raise refuse("a scan header that isn't one")
    selected = stream[start + 1 : start + 1 + 2 * count]
    reading.selected = selected[::2]
    for component, tables in zip(selected[::2], selected[1::2], strict=True):
        if component not in reading.components:
            raise refuse("a scan of a component that isn't there")
        if component in reading.scanned and reading.frame != PROGRESSIVE:
            raise refuse("a component twice")
        reading.scanned.add(component)
        if reading.frame != JPEG_LS:
            _use(reading, component, tables)


def _use(reading: Reading, component: int, tables: int) -> None:
    wanted = [(DHT, tables >> 4)]
    if reading.frame != LOSSLESS:
        wanted += [(DHT, 0x10 | tables & 15), (DQT, reading.components[component].table)]
    reading.used.update(reading.tables[key] for key in wanted if key in reading.tables)


def _after_scan(reading: Reading, stream: bytes, at: int) -> int:
    """Where the coded data end. They have as many restart markers as their interval asks for."""
    is_ls = reading.frame == JPEG_LS
    found = (END_OF_LS_SCAN if is_ls else END_OF_SCAN).search(stream, at)
    end = found.start() if found else len(stream)
    markers = list(RESTART.finditer(stream, at, end))
    reading.ends += [*(match.start() for match in markers), end]
    wanted = -(-_units(reading) // reading.interval) - 1 if reading.interval and not is_ls else 0
    are_in_order = all(match[1][0] & 7 == count & 7 for count, match in enumerate(markers))
    if len(markers) != wanted or not are_in_order:
        raise refuse("restart markers in places that the picture doesn't have")
    return end


def _units(reading: Reading) -> int:
    """How many units (MCU) the scan has (T.81 A.2)."""
    side = 1 if reading.frame == LOSSLESS else 8
    widest = max(part.across for part in reading.components.values())
    highest = max(part.down for part in reading.components.values())
    if len(reading.selected) > 1:
        across, down = -(-reading.columns // (side * widest)), -(-reading.rows // (side * highest))
        return across * down
    part = reading.components[reading.selected[0]]
    columns, rows = -(-reading.columns * part.across // widest), -(-reading.rows * part.down // highest)
    return -(-columns // side) * -(-rows // side)


def _unused(reading: Reading, stream: bytes) -> Iterator[Patch]:
    """Segments anew in which tables that no scan uses have become a comment of zeros, as long as before."""
    for marker, at, tables in reading.segments:
        kept = [stream[start:end] for start, end in tables if start in reading.used]
        size = number(stream, at + 2) + 2
        if len(kept) == len(tables):
            continue
        body = b"".join(kept)
        segment = marker.to_bytes(2, "big") + (len(body) + 2).to_bytes(2, "big") + body if kept else b""
        rest = size - len(segment)
        yield at, segment + COMMENT.to_bytes(2, "big") + (rest - 2).to_bytes(2, "big") + bytes(rest - 4)
