"""What encapsulated pixels carry beside the picture: comments, application segments, thumbnails, bytes after
an image's end or between its parts, words in offset tables. Decoders ignore all of that.

It is overwritten in place, so that no length, offset or pixel changes; an offset table that isn't one becomes
empty. What a stream is, its own first bytes say and not the transfer syntax; the fragments of a frame are one
stream. DICOM PS3.5 A.4, G.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

from fedai_site.deidentify import jpeg, jpeg2000, runlength
from fedai_site.deidentify.jpeg import Patch
from fedai_site.quarantine import Quarantine, Reason

JPEG_FAMILY = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.8")
JPEG_2000_FAMILY = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
RLE = "1.2.840.10008.1.2.5"
FLIP = 0x55
ITEM = b"\xfe\xff\x00\xe0"
Span = tuple[int, int]
Search = Callable[[bytes], Iterable[Patch]]


def without_comments(value: bytes, transfer_syntax: str, pixels: int = 0) -> tuple[bytes, int]:
    """The items of an encapsulated pixel element without what decoders ignore, and how much was overwritten.

    `pixels`: rows times columns, by which the end of run-length data is known. Raises Quarantine for streams
    of an unknown kind.
    """
    searches = _searches(transfer_syntax, pixels)
    if not searches:
        return value, 0
    value, count = _checked_table(value)
    patches: list[Patch] = []
    for fragments in _frames(value, searches):
        stream = b"".join(value[start:end] for start, end in fragments)
        search = next((found for magic, found in searches if stream.startswith(magic)), None)
        if search is None:
            raise Quarantine(Reason.SUSPICIOUS_CONTENT, "compressed pixels of an unknown kind")
        for patch in search(stream):
            count += 1
            patches += _placed(patch, fragments)
    return overwritten(value, patches), count


def streams(value: bytes, transfer_syntax: str, pixels: int = 0) -> int:
    """How many pictures an encapsulated pixel element holds, whatever the header says; 0 if not known."""
    searches = _searches(transfer_syntax, pixels)
    return sum(1 for _ in _frames(value, searches)) if searches else 0


def last_bytes(value: bytes, transfer_syntax: str, size: int) -> list[list[list[Patch]]]:
    """For each frame and each end of coded data in it: other bytes for the last ones before it (and its
    padding), as patches of the element. Whether they show tells whether a decoder reads those bytes at all.

    Nothing for run-length data, whose ends are known. Raises Quarantine.
    """
    found: list[list[list[Patch]]] = []
    searches = _searches(transfer_syntax, 0)
    for fragments in _frames(value, searches) if searches else ():
        stream = b"".join(value[start:end] for start, end in fragments)
        ends = (jpeg if stream.startswith(b"\xff\xd8") else jpeg2000).coded_ends(stream)
        found.append([list(_placed(_flipped(stream, end, size), fragments)) for end in ends])
    return found


def _flipped(stream: bytes, end: int, size: int) -> Patch:
    """The bytes before an end and its padding, with other bits; 0xFF and what follows it stay."""
    while end and stream[end - 1] in (0, 0xFF):
        end -= 1
    start = max(0, end - size)
    other = bytearray(stream[start:end])
    for place, byte in enumerate(other):
        after_marker = (stream[start + place - 1] if start + place else 0) == 0xFF
        if byte != 0xFF and byte ^ FLIP != 0xFF and not after_marker:
            other[place] = byte ^ FLIP
    return start, bytes(other)


def _searches(transfer_syntax: str, pixels: int) -> tuple[tuple[bytes, Search], ...]:
    """(first bytes, search) of the kinds of stream that may stand under a transfer syntax."""
    if transfer_syntax.startswith(JPEG_FAMILY + JPEG_2000_FAMILY):
        return ((b"\xff\xd8", jpeg.hidden), (b"\xff\x4f", jpeg2000.hidden))
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


def _placed(patch: Patch, fragments: list[Span]) -> Iterator[Patch]:
    """A patch of the stream as patches of the element."""
    first, data = patch
    before = 0
    for start, end in fragments:
        low, high = max(first - before, 0), min(first + len(data) - before, end - start)
        if low < high:
            yield start + low, data[before + low - first : before + high - first]
        before += end - start


def overwritten(value: bytes, patches: list[Patch]) -> bytes:
    if not patches:
        return value
    changed = bytearray(value)
    for start, data in patches:
        changed[start : start + len(data)] = data
    return bytes(changed)
