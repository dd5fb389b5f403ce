"""The leak search: do the bytes that left the sites hold any of the identifiers that were planted in them?

An identifier is looked for as it would lie in a file: in UTF-8, Latin-1, UTF-16 (both orders), the Korean
and Japanese encodings that DICOM uses, and base64 of UTF-8 at each of its three alignments; as written and
in upper and lower case.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "euc-kr", "iso2022_kr", "iso2022_jp")
KEY_BYTES = 4
PIECE_BYTES = 1 << 24


@dataclass(frozen=True)
class Found:
    """One identifier in one file. `identifier` is its place in the list of planted ones, not its text."""

    file: Path
    offset: int
    identifier: int


@dataclass(frozen=True)
class Search:
    """All spellings of the identifiers, keyed by their first four bytes."""

    spellings: dict[int, list[tuple[bytes, int]]]
    longest: int

    @classmethod
    def of(cls, identifiers: Iterable[str]) -> Search:
        by_key: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
        longest = KEY_BYTES
        for number, identifier in enumerate(identifiers):
            for spelling in set(_spellings(identifier)):
                by_key[int.from_bytes(spelling[:KEY_BYTES], "little")].append((spelling, number))
                longest = max(longest, len(spelling))
        return cls(dict(by_key), longest)

    def in_files(self, files: Iterable[Path]) -> list[Found]:
        """Every identifier that a file holds, once for each file."""
        return [found for file in files for found in self.in_file(file)]

    def in_file(self, file: Path, head_bytes: int | None = None) -> list[Found]:
        """The same for one file, or for its first `head_bytes`."""
        found: dict[int, int] = {}
        with file.open("rb") as opened:
            data = opened.read() if head_bytes is None else opened.read(head_bytes)
        for offset, number in self.in_bytes(data):
            found.setdefault(number, offset)
        return [Found(file, offset, number) for number, offset in found.items()]

    def in_bytes(self, data: bytes) -> Iterator[tuple[int, int]]:
        """(offset, identifier) of every hit, any alignment."""
        keys = np.array(sorted(self.spellings), dtype=np.uint32)
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES + self.longest]
            for offset in _candidates(piece, keys):
                key = int.from_bytes(piece[offset : offset + KEY_BYTES], "little")
                for spelling, number in self.spellings[key]:
                    if piece.startswith(spelling, offset):
                        yield start + offset, number


def _candidates(piece: bytes, keys: npt.NDArray[np.uint32]) -> Iterator[int]:
    """Offsets at which one of the sorted four-byte keys begins."""
    for shift in range(min(KEY_BYTES, max(0, len(piece) - KEY_BYTES + 1))):
        words = np.frombuffer(piece, dtype="<u4", count=(len(piece) - shift) // KEY_BYTES, offset=shift)
        place = np.searchsorted(keys, words)
        hits = np.flatnonzero(keys[np.minimum(place, len(keys) - 1)] == words) if len(keys) else ()
        yield from (int(hit) * KEY_BYTES + shift for hit in hits)


def _spellings(identifier: str) -> Iterator[bytes]:
    for text in {identifier, identifier.upper(), identifier.lower()}:
        for encoding in ENCODINGS:
            try:
                spelled = text.encode(encoding)
            except UnicodeEncodeError:
                continue
            if len(spelled) >= KEY_BYTES:
                yield spelled
        yield from _base64(text.encode())


def _base64(raw: bytes) -> Iterator[bytes]:
    """The characters of base64 that depend on `raw` alone, wherever it begins in what was encoded."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        if last - first > KEY_BYTES + 2:
            yield encoded[first:last]
