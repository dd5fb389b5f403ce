"""What a JPEG 2000 codestream carries beside the picture (ITU-T T.800 A): comments, pointers, bytes after its
end.

Each is overwritten in place. A codestream with segments of another kind or size, or with parts of tiles that
it doesn't have, goes to quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fedai_site.deidentify.jpeg import ENCODERS, Patch, number, refuse, tail

EOC, SOT, SOD, SIZ, COD, QCD, COMMENT = 0xFFD9, 0xFF90, 0xFF93, 0xFF51, 0xFF52, 0xFF5C, 0xFF64
POINTERS = frozenset({0xFF55, 0xFF57, 0xFF58, 0xFF63})
"""TLM, PLM, PLT (lengths of tile-parts and packets), CRG (registration): no decoder needs them."""
CODING = frozenset({0xFF50, SIZ, COD, 0xFF53, 0xFF59, QCD, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61})
"""CAP, SIZ, COD, COC, CPF, QCD, QCC, RGN, POC, PPM, PPT."""


def hidden(stream: bytes) -> list[Patch]:
    """Patches for all that isn't the picture. Raises Quarantine."""
    return list(_read(stream, {}))


def coded_ends(stream: bytes) -> list[int]:
    """Where the coded data of each tile end. Raises Quarantine."""
    ends: dict[int, int] = {}
    for _ in _read(stream, ends):
        pass
    return list(ends.values())


def _read(stream: bytes, ends: dict[int, int]) -> Iterator[Patch]:
    """The patches; `ends` receives by tile where its last part ends."""
    at, end_of_part, levels, parts = 2, len(stream), -1, Counter[int]()
    tiles = _tiles(stream)
    while at + 2 <= len(stream) and (marker := number(stream, at)) != EOC:
        if marker == SOD:
            if end_of_part <= at:
                raise refuse("a part of a tile that is shorter than its header")
            at = end_of_part
            continue
        after = at + 2 + max(2, number(stream, at + 2))
        if marker == SOT:
            end_of_part = _end_of_part(stream, at, after, tiles, parts)
            ends[number(stream, at + 4)] = min(end_of_part, len(stream))
        elif marker == COMMENT:
            yield from _comment(stream, at, min(after, len(stream)))
        elif marker in POINTERS:
            yield at, COMMENT.to_bytes(2, "big") + stream[at + 2 : at + 4] + bytes(after - at - 4)
        elif marker not in CODING:
            raise refuse("a segment of a kind that no picture needs")
        if marker == COD:
            levels = stream[at + 9]
        _check_size(stream, marker, at, after, levels)
        at = after
    yield from tail(stream, at + 2)


def _tiles(stream: bytes) -> int:
    """How many tiles the image has, by its first segment (A.5.1)."""
    if number(stream, 2) != SIZ or len(stream) < 42:
        raise refuse("a codestream without its size")
    width, height, left, top, across, down, first, upper = (number(stream, at, 4) for at in range(8, 40, 4))
    if not across or not down or left > width or top > height:
        raise refuse("a codestream without its size")
    return -(-(width - first) // across) * -(-(height - upper) // down)


def _end_of_part(stream: bytes, at: int, after: int, tiles: int, parts: Counter[int]) -> int:
    """Where a tile-part ends; its number must be the next of its tile's."""
    tile, length = number(stream, at + 4), number(stream, at + 6, 4)
    if after != at + 12 or tile >= tiles or stream[at + 10] != parts[tile]:
        raise refuse("a part of a tile that the picture doesn't have")
    parts[tile] += 1
    if 0 < length < 14:
        raise refuse("a part of a tile that is shorter than its header")
    return at + length if length else _end(stream)


def _comment(stream: bytes, at: int, end: int) -> Iterator[Patch]:
    """Its text, unless that is the encoder's name; the two bytes before it say of what kind it is."""
    if number(stream, at + 4) > 1:
        yield at + 4, b"\0\0"
    if stream[at + 6 : end].strip(b"\0") and not ENCODERS.fullmatch(stream, at + 6, end):
        yield at + 6, bytes(end - at - 6)


def _check_size(stream: bytes, marker: int, at: int, after: int, levels: int) -> None:
    """Raises Quarantine for segments that are longer than what they hold."""
    size = after - at - 2
    if marker == SIZ:
        wanted = 38 + 3 * number(stream, at + 38)
    elif marker == COD:
        wanted = 12 + (levels + 1 if stream[at + 4] & 1 else 0)
    elif marker == QCD and levels >= 0:
        wanted = {0: 4 + 3 * levels, 1: 5, 2: 5 + 6 * levels}.get(stream[at + 4] & 31, size)
    else:
        return
    if size != wanted:
        raise refuse("a segment that isn't as long as what it holds")


def _end(stream: bytes) -> int:
    """The first end-of-codestream: no data of a tile holds a marker above 0xFF8F (T.800 B.10.1)."""
    found = stream.find(b"\xff\xd9")
    return found if found >= 0 else len(stream)
