"""Is anything left of it? Searches files for the bytes of what was deleted, whatever they are called.

Of each content up to three stretches of 1,024 bytes are looked for, at any offset, of masks longer ones along
the edges of what is outlined, and short texts whole.
What was compressed or encrypted meanwhile isn't found.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedai.errors import DataError

UNFINISHED = "unfinished"  # the folder of a home where `keep` writes
STRETCH = 1024
SHORTEST = 32
ANCHOR = 8
VARIED = 5  # different bytes among the eight of an anchor
LABELS = 1 << 14  # bytes of a mask's stretch
EDGES = 8  # changes of label in a stretch that tell one mask from another
PIECE = 1 << 22
STEP = 1 << 18
Table = tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]


@dataclass
class Traces:
    """Byte strings to look for; `plain` counts contents with nothing in them to recognise, such as black
    pictures. `answers`: those that were in answers alone. `deleted`: by kind, digests of what they are of.
    """

    plain: int = 0
    needles: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    answers: set[bytes] = field(default_factory=set)
    deleted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, content: bytes, *, is_answer: bool = False) -> None:
        """Remember stretches of a content: from its first half, its second half and its end."""
        size = min(STRETCH, len(content))
        starts = (len(content) // 4, len(content) // 2, len(content) - size)
        found = [one for start in starts if (one := _stretch(content, start, size))]
        self.plain += not found
        for stretch in set(found):
            self._put(stretch, is_answer=is_answer)

    def add_labels(self, content: bytes) -> None:
        """As `add`, of a mask: stretches that begin just before an edge and hold several."""
        values = np.frombuffer(content, np.uint8)
        edges = np.flatnonzero(values[1:] != values[:-1]) + 1
        starts = (
            {max(0, int(edges[place]) - ANCHOR // 2) for place in (0, len(edges) // 3)} if len(edges) else ()
        )
        told = [at for at in starts if ((edges > at) & (edges < at + LABELS)).sum() >= EDGES]
        self.plain += not told
        for at in told:
            self._put(content[at : at + LABELS])

    def add_text(self, text: str) -> None:
        """Remember a text of eight characters and more: a UID, a hash, a path."""
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) >= ANCHOR:
            self._put(raw)

    def keep(self, path: Path) -> None:
        """Write them down before what they are of is deleted: a search that finds something is to be done
        again.
        """
        path.parent.mkdir(exist_ok=True, mode=0o700)
        told = {
            "plain": self.plain,
            "needles": [one.hex() for group in self.needles.values() for one in group],
            "answers": sorted(one.hex() for one in self.answers),
            "deleted": {kind: sorted(digests) for kind, digests in self.deleted.items()},
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(told, file)

    def add_kept(self, path: Path) -> None:
        """Remember what an earlier try wrote down. Raises DataError where that can't be read."""
        if not path.exists():
            return
        try:
            told = json.loads(path.read_bytes())
            self.plain += int(told["plain"])
            answers = set(told.get("answers", ()))
            for needle in told["needles"]:
                self._put(bytes.fromhex(needle), is_answer=needle in answers)
            for kind, digests in told.get("deleted", {}).items():
                self.deleted[kind].update(digests)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(
                "what an earlier try looked for can't be read", where=str(path),
                hint="look for what it named by hand, then delete this file",
            ) from None  # fmt: skip

    def note(self, kind: str, names: Iterable[object]) -> None:
        """Count what is about to be deleted, once in however many tries."""
        self.deleted[kind].update(sha256(str(name).encode()).hexdigest()[:16] for name in names)

    def without_answers(self) -> Traces:
        """Those alone that are of more than answers."""
        left = Traces()
        for needle in (one for group in self.needles.values() for one in group if one not in self.answers):
            left._put(needle)
        return left

    def _put(self, needle: bytes, *, is_answer: bool = False) -> None:
        known = self.needles[needle[:ANCHOR]]
        if not is_answer:
            self.answers.discard(needle)
        elif needle not in known:
            self.answers.add(needle)
        if needle not in known:
            known.append(needle)

    def found_in(self, file: Path, table: Table) -> bool:
        """Whether a file holds any of them. Raises OSError where it can't be read."""
        longest = max((len(one) for group in self.needles.values() for one in group), default=0)
        with file.open("rb") as opened:
            before = b""
            while piece := opened.read(PIECE):
                data = before + piece
                for at in _candidates(data, table):
                    if any(data.startswith(one, at) for one in self.needles.get(data[at : at + ANCHOR], ())):
                        return True
                before = data[-longest:] if longest else b""
        return False

    def table(self) -> Table:
        """What candidates are looked up in: by their first two bytes, then by all of the anchor."""
        anchors = np.array(sorted(int.from_bytes(key, "little") for key in self.needles), np.uint64)
        known = np.zeros(1 << 16, np.bool_)
        known[(anchors & np.uint64(0xFFFF)).astype(np.intp)] = True
        return known, anchors


def files_under(folder: Path) -> Iterator[Path]:
    """All regular files, sorted; links are not followed."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def find(traces: Traces, files: Iterable[Path]) -> tuple[list[Path], int, int]:
    """(files that hold a trace, files searched, bytes searched). Files that go meanwhile don't count."""
    table = traces.table()
    found, number, size = [], 0, 0
    for file in files:
        try:
            holds, length = traces.found_in(file, table), file.stat().st_size
        except FileNotFoundError:
            continue
        found += [file] if holds else []
        number, size = number + 1, size + length
    return found, number, size


def _stretch(content: bytes, start: int, size: int) -> bytes | None:
    """Up to `size` bytes from about `start` on that begin with varied ones; None where there are none."""
    first = max(0, min(start, len(content) - size))
    for at in range(first, min(len(content) - SHORTEST, first + 64 * STRETCH) + 1):
        if len(set(content[at : at + ANCHOR])) >= VARIED:
            return content[at : at + size]
    return None


def _candidates(data: bytes, table: Table) -> Iterator[int]:
    """Offsets at which a needle's first eight bytes lie."""
    known, anchors = table
    for begin in range(0, len(data) - ANCHOR + 1, STEP):
        size = min(STEP, len(data) - ANCHOR + 1 - begin)
        maybe = np.flatnonzero(np.take(known, np.ndarray((size,), "<u2", data, begin, (1,)), mode="wrap"))
        windows = np.ndarray((size,), "<u8", data, begin, (1,))[maybe]
        yield from (begin + int(at) for at in maybe[np.isin(windows, anchors)])
