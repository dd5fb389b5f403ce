"""A DICOM file (PS3.10) as its parts: preamble, file meta, data set, and what is left over at the end."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from fedai_site.verification.elements import Element, Unreadable, Walk

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = frozenset({IMPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1", DEFLATED})
GROUP_LENGTH, TRANSFER_SYNTAX = 0x00020000, 0x00020010
MAXIMUM_INFLATED = 512 * 2**20


@dataclass(frozen=True)
class Part10:
    """A file taken apart. Offsets of `elements` and `left_over` are those of `content`, which is the file
    itself or, if its data set is deflated, the inflated data set. `broken` says in words what can't be
    read, or ''.
    """

    preamble: bytes
    meta: tuple[Element, ...]
    syntax: str
    content: memoryview
    inflated: bool
    elements: tuple[Element, ...]
    left_over: tuple[int, int]
    oddities: tuple[tuple[str, int], ...]
    broken: str = ""

    def first(self, tag: int) -> Element | None:
        """The attribute at the top level, if it is there."""
        return next((e for e in self.elements if e.tag == tag and e.depth == 0), None)

    def text(self, tag: int) -> str:
        """The value at the top level as ASCII text without padding; '' if it isn't there."""
        element = self.first(tag)
        return element.stripped().decode("ascii", "replace") if element else ""


def is_part10(data: memoryview) -> bool:
    """Whether the bytes claim to be a DICOM file."""
    return bytes(data[128:132]) == b"DICM"


def take_apart(data: memoryview, maximum_inflated: int = MAXIMUM_INFLATED) -> Part10:
    """Read a file. Never raises for its content: what can't be read is in `broken`."""
    meta = Walk(data)
    try:
        begin = meta.run(132, len(data), group=2)
    except Unreadable as error:
        return _parts(data, meta, "", data, Walk(data), len(data), f"file meta: {error}")
    syntax = next(
        (e.stripped().decode("ascii", "replace") for e in meta.elements if e.tag == TRANSFER_SYNTAX), ""
    )
    _check_length(meta, begin)
    content, start, broken, rest = data, begin, "", 0
    if syntax == DEFLATED:
        inflated, rest, broken = _inflate(data[begin:], maximum_inflated)
        content, start = memoryview(inflated), 0
    walk = Walk(content, syntax != BIG_ENDIAN, syntax != IMPLICIT)
    try:
        end = walk.run(start, len(content))
    except Unreadable as error:
        end, broken = error.offset, broken or f"data set: {error}"
    if rest > 1:
        walk.oddities.append(("bytes after the deflated data set", len(data) - rest))
    return _parts(data, meta, syntax, content, walk, end, broken or ("" if syntax else "no transfer syntax"))


def _parts(
    data: memoryview, meta: Walk, syntax: str, content: memoryview, walk: Walk, end: int, broken: str
) -> Part10:
    return Part10(
        bytes(data[:128]), tuple(meta.elements), syntax, content, content is not data, tuple(walk.elements),
        (min(end, len(content)), len(content)), (*meta.oddities, *walk.oddities), broken,
    )  # fmt: skip


def _check_length(meta: Walk, begin: int) -> None:
    """The group length of the file meta must say where it ends; else readers disagree about what follows."""
    first = meta.elements[0] if meta.elements else None
    if first is None or first.tag != GROUP_LENGTH or len(first.value) != 4:
        meta.oddities.append(("a file meta group without its length", 132))
    elif first.end + int.from_bytes(first.value, "little") != begin:
        meta.oddities.append(("a file meta group whose length isn't true", 132))


def _inflate(data: memoryview, maximum: int) -> tuple[bytes, int, str]:
    """(inflated bytes, number of bytes after the stream, what is wrong), never more than `maximum` bytes."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(bytes(data), maximum)
    except zlib.error:
        return b"", 0, "data set: can't be inflated"
    if not stream.eof:
        whole = len(inflated) < maximum
        return (
            inflated,
            0,
            "data set: a deflated stream without an end" if whole else "data set: inflates to too much",
        )
    return inflated, len(stream.unused_data), ""
