"""Takes a DICOM data set apart, byte by byte: a parser of its own, so that what another parser overlooks
isn't overlooked twice.

PS3.5 section 7. Bounded in depth and number of elements; never reads past its end; stops with Unreadable.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pydicom.datadict import DicomDictionary, RepeatersDictionary, mask_match

SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
TEXT = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
CHARACTER_SET = 0x00080005
MAXIMUM_DEPTH = 48
MAXIMUM_ELEMENTS = 500_000


class Unreadable(ValueError):
    """The bytes are no data set from `offset` on. The text never holds any of them."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} at byte {offset}")
        self.what = what
        self.offset = offset


class TooMuch(Unreadable):
    """A bound on depth or number was reached: the whole data set isn't read any further."""


@dataclass(frozen=True, slots=True)
class Element:
    """One attribute where it stands. `parent` is the path of its item; `start` and `end` are the value's
    place in the parsed bytes; sequences are elements too, followed by those of their items.
    """

    tag: int
    vr: str
    parent: str
    depth: int
    start: int
    end: int
    value: memoryview
    little: bool = True
    charset: bytes = b""
    fragments: bool = False

    @property
    def place(self) -> str:
        """The tag path: '(0040,A730)[0](0008,0104)'."""
        return f"{self.parent}{name_of(self.tag)}"

    @property
    def group(self) -> int:
        return self.tag >> 16

    def stripped(self) -> bytes:
        """The value without padding."""
        return bytes(self.value).strip(b" \0")


def name_of(tag: int) -> str:
    """'(0010,0020)'."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@cache
def standard_vr(tag: int) -> str:
    """The Standard's VR, of 'US or SS' and the like the first; '' for a tag that the Standard doesn't
    know.
    """
    entry = DicomDictionary.get(tag)
    if entry is None and (mask := mask_match(tag)):
        entry = RepeatersDictionary.get(mask)
    return str(entry[0]).split(" ")[0] if entry else ""


@dataclass
class Walk:
    """One way through the bytes of a data set. `elements` grows in the order of the bytes, `oddities` holds
    (what, offset) of what a correct writer wouldn't have written.
    """

    data: memoryview
    little: bool = True
    explicit: bool = True
    elements: list[Element] = field(default_factory=list)
    oddities: list[tuple[str, int]] = field(default_factory=list)

    def run(self, start: int, end: int, group: int | None = None) -> int:
        """Read a data set (only `group`, if given). Returns where it ended: `end`, unless bytes are left over
        that are no attribute. Raises Unreadable for what is broken inside an attribute.
        """
        return self._attributes(start, end, "", 0, self.explicit, group)

    def _attributes(
        self, at: int, end: int, parent: str, depth: int, explicit: bool, group: int | None = None
    ) -> int:
        """Attributes up to `end`. Inside an item of undefined length stops before the item's end mark."""
        charset, before = b"", -1
        if depth > MAXIMUM_DEPTH:
            raise TooMuch("sequences nested too deep", at)
        while at < end:
            if end - at < 8:
                return self._left_over(at, depth)
            if group is not None and self._group(at) != group:
                return at
            tag, vr, length, start = self._header(at, end, explicit)
            if tag in (ITEM_END, SEQUENCE_END):
                return at
            if tag <= before or tag >> 16 == 0xFFFE or not vr:
                if depth == 0:
                    return at
                raise Unreadable("attributes out of order" if vr else "no attribute", at)
            before = tag
            at = self._value(tag, vr, length, start, end, parent, depth, charset, explicit)
            if tag == CHARACTER_SET:
                charset = self.elements[-1].stripped()
        return at

    def _group(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 2], "little" if self.little else "big")

    def _left_over(self, at: int, depth: int) -> int:
        if depth:
            raise Unreadable("an attribute that is cut short", at)
        return at

    def _header(self, at: int, end: int, explicit: bool) -> tuple[int, str, int, int]:
        """(tag, VR, length, where the value begins); VR '' if the bytes are no header."""
        order = "<" if self.little else ">"
        group, element = struct.unpack_from(f"{order}HH", self.data, at)
        tag = group << 16 | element
        if group == 0xFFFE or not explicit:
            (length,) = struct.unpack_from(f"{order}I", self.data, at + 4)
            return tag, self._implied(tag, length), length, at + 8
        vr = bytes(self.data[at + 4 : at + 6])
        if vr in SHORT:
            return tag, vr.decode(), struct.unpack_from(f"{order}H", self.data, at + 6)[0], at + 8
        if not (vr.isalpha() and vr.isupper()) or end - at < 12:
            return tag, "", 0, at
        if any(self.data[at + 6 : at + 8]):
            self.oddities.append(("bytes in the reserved part of a header", at))
        if vr not in LONG:
            self.oddities.append(("a value representation that the Standard doesn't know", at))
        return tag, vr.decode(), struct.unpack_from(f"{order}I", self.data, at + 8)[0], at + 12

    def _implied(self, tag: int, length: int) -> str:
        """The VR of an attribute that states none."""
        if tag & 0xFFFF == 0:
            return "UL"
        if tag >> 16 & 1:
            return "SQ" if length == UNDEFINED else "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
        return standard_vr(tag) or ("SQ" if length == UNDEFINED else "UN")

    def _value(
        self, tag: int, vr: str, length: int, start: int, end: int, parent: str, depth: int, charset: bytes,
        explicit: bool,
    ) -> int:  # fmt: skip
        """Read one value; returns where the next attribute begins."""
        if len(self.elements) >= MAXIMUM_ELEMENTS:
            raise TooMuch("more attributes than any object has", start)
        if length != UNDEFINED and length > end - start:
            raise Unreadable("a value longer than what is left", start)
        stop = end if length == UNDEFINED else start + length
        is_bulk = length == UNDEFINED and vr not in ("SQ", "UN")
        number = len(self.elements)
        vr = _known_vr(tag, vr, length)
        self._append(tag, vr, parent, depth, start, stop, charset, is_bulk)
        if is_bulk:
            stop = self._fragments(start, end)
        elif vr == "SQ" and length != UNDEFINED:
            self._closed(start, stop, f"{parent}{name_of(tag)}", depth, explicit, number)
        elif length == UNDEFINED:
            inner = explicit and vr != "UN"
            stop = self._items(start, stop, f"{parent}{name_of(tag)}", depth, inner, length)
        elif vr == "UN" and bytes(self.data[start : start + 4]) == b"\xfe\xff\x00\xe0":
            self._unknown(start, stop, f"{parent}{name_of(tag)}", depth, number)
        if length == UNDEFINED:
            self.elements[number] = self._made(tag, vr, parent, depth, start, stop, charset, is_bulk)
            return stop + 8
        return stop

    def _append(self, *parts: object) -> None:
        self.elements.append(self._made(*parts))  # type: ignore[arg-type]

    def _made(
        self, tag: int, vr: str, parent: str, depth: int, start: int, end: int, charset: bytes, bulk: bool
    ) -> Element:
        """The element with its bytes; a sequence has none of its own."""
        value = self.data[start:start] if vr == "SQ" else self.data[start:end]
        return Element(tag, vr, parent, depth, start, end, value, self.little, charset, bulk)

    def _items(self, at: int, end: int, parent: str, depth: int, explicit: bool, length: int) -> int:
        """The items of a sequence. Returns where it ends, before the end mark of an undefined length."""
        number = 0
        while at < end:
            tag, size, start = self._mark(at, end)
            if tag == SEQUENCE_END and length == UNDEFINED:
                return at
            if tag != ITEM:
                raise Unreadable("a sequence that holds something else than items", at)
            if size != UNDEFINED and size > end - start:
                raise Unreadable("an item longer than its sequence", at)
            stop = end if size == UNDEFINED else start + size
            at = self._attributes(start, stop, f"{parent}[{number}]", depth + 1, explicit)
            at = self._close(at, stop, end, size)
            number += 1
        if length == UNDEFINED:
            raise Unreadable("a sequence without an end", at)
        return at

    def _close(self, at: int, stop: int, end: int, size: int) -> int:
        """Past the end of an item."""
        if size != UNDEFINED:
            if at != stop:
                raise Unreadable("an item with bytes that are no attribute", at)
            return stop
        if self._mark(at, end)[0] != ITEM_END:
            raise Unreadable("an item without an end", at)
        return at + 8

    def _mark(self, at: int, end: int) -> tuple[int, int, int]:
        """(tag, length, where its value begins) of an item or an end mark."""
        if end - at < 8:
            raise Unreadable("a sequence that is cut short", at)
        group, element, length = struct.unpack_from("<HHI" if self.little else ">HHI", self.data, at)
        if group == 0xFFFE and element != 0xE000 and length:
            self.oddities.append(("a length in an end mark", at))
        return group << 16 | element, length, at + 8

    def _fragments(self, at: int, end: int) -> int:
        """The fragments of encapsulated pixels; returns where the end mark stands."""
        while at < end:
            tag, size, start = self._mark(at, end)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM or size > end - start:
                raise Unreadable("pixels in pieces that don't fit", at)
            at = start + size
        raise Unreadable("pixels in pieces without an end", at)

    def _closed(self, start: int, stop: int, parent: str, depth: int, explicit: bool, number: int) -> None:
        """A sequence of defined length. If it is broken inside, its bytes are kept as one value of
        unknown kind, and what follows it can still be read.
        """
        try:
            self._items(start, stop, parent, depth, explicit, stop - start)
        except TooMuch:
            raise
        except Unreadable as error:
            whole = self.elements[number]
            del self.elements[number:]
            self._append(whole.tag, "UN", whole.parent, depth, start, stop, whole.charset, False)
            self.oddities.append((f"a sequence that can't be read: {error.what}", start))

    def _unknown(self, start: int, stop: int, parent: str, depth: int, number: int) -> None:
        """A value of unknown representation that looks like a sequence (implicit, PS3.5 6.2.2): read it
        as one too, if it is one.
        """
        inner = Walk(self.data, True, False)
        try:
            inner._items(start, stop, parent, depth, False, stop - start)
        except Unreadable:
            return
        self.elements.extend(inner.elements)
        if len(self.elements) > MAXIMUM_ELEMENTS:
            raise TooMuch("more attributes than any object has", start)


def _known_vr(tag: int, vr: str, length: int) -> str:
    """The Standard's VR of a public attribute that was written as UN (PS3.5 6.2.2), but for sequences."""
    standard = standard_vr(tag) if vr == "UN" and length != UNDEFINED and not tag >> 16 & 1 else ""
    return vr if standard in ("", "SQ") else standard


def pieces(element: Element) -> Iterator[memoryview]:
    """The fragments of encapsulated pixels, offset table first; the whole value of any other element."""
    if not element.fragments:
        yield element.value
        return
    at, data = 0, element.value
    while len(data) - at >= 8:
        tag_group, tag_element, size = struct.unpack_from("<HHI", data, at)
        if (tag_group, tag_element) != (0xFFFE, 0xE000):
            return
        yield data[at + 8 : at + 8 + size]
        at += 8 + size
