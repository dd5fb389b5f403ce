"""Looks for the site's known values, and for what shows by its form, in everything that a file holds: text
attributes in every reading, all bytes, what is inflated, decoded or packed inside, and the name of the file.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from fedai_site.verification.attributes import BULK, OWN_MARKS
from fedai_site.verification.claims import PIXEL_TAGS
from fedai_site.verification.detectors import detect
from fedai_site.verification.elements import TEXT, Element
from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.index import Entry, Index, columns_of
from fedai_site.verification.known import Kind
from fedai_site.verification.part10 import Part10
from fedai_site.verification.search import Hit
from fedai_site.verification.spellings import readings
from fedai_site.verification.technical import DEFINED_TERMS, TECHNICAL

DATES = frozenset({"DA", "DT", "TM"})
NUMBERS = frozenset({"DS", "IS"})
BINARY_TEXT = frozenset({"UN", "OB", "OW", "OL", "OF", "OD", "OV"})
MOST_BINARY_TEXT = 65_536
BULK_SIZE = 1024
SHORT = 4
UNLIKELY = 1e-4
MOST_GAPS = 4
PACKED = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}[ :-]?){6,}")
MOST_PACKED = 2**20
ALNUM = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGIT = frozenset(b"0123456789")


@dataclass(frozen=True)
class Context:
    """What a scan has to know: the index, the file's path, the dates claim and the object's own pseudonym."""

    index: Index
    file: str
    dates: str = "REMOVED"
    patient: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a buffer: [start, end) and whether it is pixels or the like."""

    start: int
    end: int
    bulk: bool


def scan_text(text: str, context: Context, place: str, vr: str = "LT", tag: int = 0) -> Iterator[Finding]:
    """Findings in one text, as the attribute `tag` of representation `vr`."""
    if vr not in ("UI", *NUMBERS, *DATES):
        for how_bad, what in detect(text):
            yield Finding(how_bad, "form of an identifier", what, context.file, place)
    for found in context.index.in_text(text):
        entries = context.index.keys[found]
        severity = _text_severity(found, entries, context, vr, tag, text)
        if severity is not None:
            yield _known(severity, entries, context, place)


def _known(
    severity: Severity, entries: tuple[Entry, ...], context: Context, place: str, how: str = ""
) -> Finding:
    chance = {Severity.LOOK: ": it may be chance", Severity.INFO: ", as dates that were kept would"}.get(
        severity, ""
    )
    message = f"a known value stands here{how}{chance}"
    return Finding(severity, "known values", message, context.file, place, columns_of(entries))


def _text_severity(
    found: str, entries: tuple[Entry, ...], context: Context, vr: str, tag: int, text: str
) -> Severity | None:
    if all(entry.kind is Kind.DATE for entry in entries):
        return _date_severity(entries, context) if len(found) == 8 else None
    if vr in NUMBERS:
        return Severity.LOOK if len(found) >= 7 and text.strip() == found else None
    if vr in BINARY_TEXT and len(found) < SHORT and found.isascii():
        return None
    weak = all(entry.is_part for entry in entries) or len(found) < SHORT
    if vr == "CS" and weak and found.upper() in DEFINED_TERMS:
        return None
    if weak and (tag in TECHNICAL or tag in OWN_MARKS):
        return Severity.LOOK
    short_number = len(found) < SHORT and all(entry.kind is not Kind.NAME for entry in entries)
    return Severity.LOOK if short_number else Severity.LEAK


def _date_severity(entries: tuple[Entry, ...], context: Context) -> Severity | None:
    """A known date where dates were shifted may be another one's by chance, unless it is the patient's
    own.
    """
    if context.dates not in ("MODIFIED", "UNMODIFIED"):
        return Severity.LEAK
    if context.dates == "UNMODIFIED":
        return Severity.INFO
    owners = {entry.pseudonym for entry in entries}
    if context.patient and context.patient in owners:
        return Severity.LEAK
    return Severity.LOOK if "" in owners else None


def scan_elements(elements: tuple[Element, ...], context: Context) -> Iterator[Finding]:
    """Findings in all attributes that hold text, by any reading of their bytes."""
    for element in elements:
        if _holds_text(element):
            raw = element.stripped()
            for text in _readings(raw) if raw else ():
                yield from scan_text(text, context, element.place, element.vr, element.tag)


def _holds_text(element: Element) -> bool:
    if element.vr in TEXT or element.vr in DATES or element.vr in NUMBERS or element.vr == "UI":
        return True
    small = len(element.value) <= MOST_BINARY_TEXT and element.tag not in BULK
    return element.vr in BINARY_TEXT and small and not element.fragments


@lru_cache(65_536)
def _readings(raw: bytes) -> frozenset[str]:
    return frozenset(readings(raw))


def regions(parts: Part10) -> list[Region]:
    """The content as stretches of pixels (and the like) and of everything else."""
    bulk = [
        (e.start, e.end)
        for e in parts.elements
        if e.vr != "SQ"
        and e.end - e.start >= BULK_SIZE
        and (e.tag in PIXEL_TAGS or e.tag in BULK or e.vr in ("OF", "OD"))
    ]
    found, at = [], 0
    for start, end in bulk:
        found += [Region(at, start, False), Region(start, end, True)]
        at = end
    return [r for r in (*found, Region(at, len(parts.content), False)) if r.end > r.start]


def scan_bytes(parts: Part10, context: Context) -> Iterator[Finding]:
    """Findings in the bytes of the file's content, by place."""
    places = Places(parts)
    for region in regions(parts):
        view = parts.content[region.start : region.end]
        for hit in context.index.search.hits(view, binary=region.bulk):
            moved = Hit(hit.start + region.start, hit.end + region.start, hit.pattern)
            yield from _judged(moved, parts.content, region, places, context)
        yield from _packed(view, region, places, context)


def scan_buffer(data: memoryview, context: Context, place: str) -> Iterator[Finding]:
    """Findings in bytes that are pixels or the like as a whole."""
    region = Region(0, len(data), True)
    for hit in context.index.search.hits(data, binary=True):
        yield from _judged(hit, data, region, None, context, place)


def _judged(
    hit: Hit, data: memoryview, region: Region, places: Places | None, context: Context, place: str = ""
) -> Iterator[Finding]:
    """A hit as a finding, unless its surroundings say that it is no such value."""
    element = places.element(hit.start) if places else None
    entries = _plausible(context.index.patterns[hit.pattern], hit, data, element)
    if not entries:
        return
    where = place or (places.name(hit.start) if places else "")
    severity: Severity | None = Severity.LEAK
    if all(entry.kind is Kind.DATE for entry in entries):
        severity = _date_severity(entries, context)
    if severity is Severity.LEAK and region.bulk and _by_chance(hit, data, region, context.index):
        severity = Severity.LOOK
    if severity is not None:
        yield _known(severity, entries, context, where, " in the bytes")


def _plausible(
    entries: tuple[Entry, ...], hit: Hit, data: memoryview, element: Element | None
) -> tuple[Entry, ...]:
    """The entries that the hit can mean: digits must not go on, parts of names must not be parts of words."""
    vr = element.vr if element else ""
    if vr in TEXT:
        entries = tuple(e for e in entries if not e.is_part)
    before, after = data[hit.start - 1] if hit.start else 0, data[hit.end] if hit.end < len(data) else 0
    if (before in DIGIT and hit.pattern[0] in DIGIT) or (after in DIGIT and hit.pattern[-1] in DIGIT):
        return ()
    if not hit.pattern.isdigit():
        return entries
    if vr in NUMBERS or vr == "TM" or (len(hit.pattern) < 7 and (before in ALNUM or after in ALNUM)):
        return ()
    inside = bytes(data[hit.start : hit.end])
    if vr == "UI" and b"." in inside:
        return tuple(e for e in entries if e.kind is Kind.UID)
    return entries


def _by_chance(hit: Hit, data: memoryview, region: Region, index: Index) -> bool:
    """Whether random bytes would hold such a pattern, or digits stand among what may be dark pixels."""
    likely = 1.0
    for byte in hit.pattern:
        likely *= 1 / 128 if byte in ALNUM and byte not in DIGIT else 1 / 256
    if likely * (region.end - region.start) * index.lengths[len(hit.pattern)] > UNLIKELY:
        return True
    if not hit.pattern.isdigit():
        return False
    inside = bytes(data[hit.start : hit.end])
    if b"\0" in inside or len(inside) > len(hit.pattern) + MOST_GAPS:
        return True
    around = bytes(data[max(0, hit.start - 128) : hit.start]) + bytes(data[hit.end : hit.end + 128])
    values = around.replace(b"\0", b"")
    dark = sum(0x28 <= byte <= 0x42 for byte in values)
    return len(values) >= 16 and dark > len(values) / 4


def _packed(view: memoryview, region: Region, places: Places, context: Context) -> Iterator[Finding]:
    """Findings in what is written in base64 or in hexadecimal digits; pixels are not unpacked."""
    if region.bulk:
        return
    raw, done = bytes(view), 0
    for match in PACKED.finditer(raw):
        done += len(match[0])
        if done > MOST_PACKED:
            return
        where = places.name(region.start + match.start())
        for inner in {*_from_base64(match[0])}:
            yield from _in_packed(inner, context, f"{where}, unpacked")
    for match in HEX.finditer(raw):
        digits = re.sub(rb"[ :-]", b"", match[0])[:MOST_PACKED]
        where = places.name(region.start + match.start())
        yield from _in_packed(binascii.unhexlify(digits), context, f"{where}, unpacked")


def _in_packed(inner: bytes, context: Context, place: str) -> Iterator[Finding]:
    for hit in context.index.search.hits(memoryview(inner)):
        entries = _plausible(context.index.patterns[hit.pattern], hit, memoryview(inner), None)
        if entries:
            yield _known(Severity.LEAK, entries, context, place)


def _from_base64(run: bytes) -> Iterator[bytes]:
    """What a run of base64 may mean from each of its first four characters on."""
    plain = run.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    for skip in range(4):
        piece = plain[skip:]
        piece = piece[: len(piece) // 4 * 4] if len(piece) % 4 == 1 else piece
        yield base64.b64decode(piece + b"=" * (-len(piece) % 4))


class Places:
    """Names the place of an offset in a file's content."""

    def __init__(self, parts: Part10) -> None:
        found = [e for e in parts.elements if e.vr != "SQ"]
        if not parts.inflated:
            found = [*parts.meta, *found]
        self._elements = sorted(found, key=lambda e: e.start)
        self._starts = [e.start for e in self._elements]
        self._parts = parts

    def element(self, offset: int) -> Element | None:
        """The attribute whose value holds the byte."""
        at = bisect_right(self._starts, offset) - 1
        return self._elements[at] if at >= 0 and offset < self._elements[at].end else None

    def name(self, offset: int) -> str:
        """The tag path, or what the stretch of the file is called."""
        if (element := self.element(offset)) is not None:
            return element.place
        if not self._parts.inflated and offset < 128:
            return "preamble"
        return "after the data set" if offset >= self._parts.left_over[0] else "between attributes"
