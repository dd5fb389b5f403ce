"""Searches bytes for very many patterns at once.

The buffer is squeezed (see spellings), each window of six bytes is hashed with NumPy and looked up in a
table of the patterns' beginnings; the few windows that are in it are compared in full. The cost hardly
depends on the number of patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedai_site.verification.spellings import ESCAPES, SEPARATORS, SHORTEST_PATTERN, SMALL

MASK = np.uint64((1 << 8 * SHORTEST_PATTERN) - 1)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
STEP = 1 << 18
CHUNK = 1 << 22
OVERLAP = 1 << 13
LARGEST_TABLE_BITS = 26


@dataclass(frozen=True, slots=True)
class Hit:
    """A pattern found: where its first and behind its last byte are in the buffer."""

    start: int
    end: int
    pattern: bytes


class Search:
    """Ready to search for a set of squeezed patterns of at least six bytes."""

    def __init__(self, patterns: set[bytes]) -> None:
        self.by_beginning: dict[int, list[bytes]] = {}
        for pattern in sorted(patterns):
            if len(pattern) < SHORTEST_PATTERN:
                raise ValueError(f"a pattern of fewer than {SHORTEST_PATTERN} bytes")
            self.by_beginning.setdefault(int.from_bytes(pattern[:SHORTEST_PATTERN], "little"), []).append(
                pattern
            )
        bits = min(LARGEST_TABLE_BITS, max(12, (64 * len(self.by_beginning)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._beginnings = np.array(sorted(self.by_beginning), np.uint64)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[self._hash(self._beginnings)] = True

    def _hash(self, windows: NDArray[np.uint64]) -> NDArray[np.int64]:
        return ((windows * MULTIPLIER) >> self._shift).astype(np.int64)

    def hits(self, data: memoryview, *, binary: bool = False) -> Iterator[Hit]:
        """All hits in a buffer. `binary` says that escape sequences mean nothing in it."""
        if not self.by_beginning:
            return
        for begin in range(0, len(data), CHUNK):
            chunk = bytes(data[begin : begin + CHUNK + OVERLAP])
            for hit in self._in_chunk(chunk, binary):
                if hit.start < CHUNK:
                    yield Hit(begin + hit.start, begin + hit.end, hit.pattern)

    def _in_chunk(self, chunk: bytes, binary: bool) -> Iterator[Hit]:
        escapes = [] if binary or not _has_escapes(chunk) else [m.span() for m in ESCAPES.finditer(chunk)]
        text = (ESCAPES.sub(b"", chunk) if escapes else chunk).translate(SMALL, SEPARATORS)
        places: NDArray[np.intp] | None = None
        for at in self._candidates(text):
            for pattern in self._at(text, at):
                places = _kept(chunk, escapes) if places is None else places
                yield Hit(int(places[at]), int(places[at + len(pattern) - 1]) + 1, pattern)

    def _candidates(self, text: bytes) -> Iterator[int]:
        """Where a window of the text is the beginning of a pattern."""
        text = text + bytes(8)
        for begin in range(0, len(text) - 8, STEP):
            size = min(STEP, len(text) - 8 - begin)
            windows = np.ndarray((size,), "<u8", text, begin, (1,)) & MASK
            maybe = np.flatnonzero(self._table[self._hash(windows)])
            if maybe.size:
                found = windows[maybe]
                nearest = np.minimum(np.searchsorted(self._beginnings, found), self._beginnings.size - 1)
                yield from (begin + int(at) for at in maybe[self._beginnings[nearest] == found])

    def _at(self, text: bytes, at: int) -> list[bytes]:
        beginning = int.from_bytes(text[at : at + SHORTEST_PATTERN], "little")
        return [p for p in self.by_beginning.get(beginning, ()) if text.startswith(p, at)]


def _has_escapes(chunk: bytes) -> bool:
    return b"\x1b" in chunk or b"\x0e" in chunk or b"\x0f" in chunk


def _kept(chunk: bytes, escapes: list[tuple[int, int]]) -> NDArray[np.intp]:
    """Offsets in the chunk of the bytes that squeezing keeps."""
    raw = np.frombuffer(chunk, np.uint8)
    keep = ~np.isin(raw, np.frombuffer(SEPARATORS, np.uint8))
    for start, end in escapes:
        keep[start:end] = False
    return np.flatnonzero(keep)


def patterns_by_length(patterns: Mapping[bytes, object]) -> dict[int, int]:
    """Number of patterns of each length, from which the chance of a hit in random bytes follows."""
    counts: dict[int, int] = {}
    for pattern in patterns:
        counts[len(pattern)] = counts.get(len(pattern), 0) + 1
    return counts
