"""The bytes that left, kept for as long as site.yaml says; the ledger keeps their hashes for good.

A message leaves as objects that are named by the SHA-256 of their bytes. `sent/LINE.bin` holds those of the
ledger's line LINE, one after the other, in the order of that line's `objects`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedai.errors import DataError

DAY_S = 86_400.0
Objects = Mapping[str, bytes]


def named(contents: Iterable[bytes]) -> list[list[Any]]:
    """For the ledger: [SHA-256, bytes] of each object."""
    return [[hashlib.sha256(content).hexdigest(), len(content)] for content in contents]


@dataclass(frozen=True)
class Sent:
    """`days` 0 keeps nothing."""

    folder: Path
    days: float = 0.0

    def keep(self, line: int, objects: Objects) -> None:
        """Write what is about to leave, and delete what is too old. Raises DataError where it can't be."""
        self.prune()
        if not self.days or not objects:
            return
        try:
            self.folder.mkdir(exist_ok=True, mode=0o700)
            with (self.folder / f"{line}.bin").open("wb") as file:
                file.writelines(objects.values())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"what leaves can't be kept ({error.strerror}); nothing was sent",
                where=str(self.folder),
                hint="make room, or set keep_sent_days in site.yaml",
            ) from None

    def prune(self) -> int:
        """Delete what is older than `days`; gives how many messages that were."""
        oldest = time.time() - self.days * DAY_S
        old = [path for path in self.folder.glob("*.bin") if not self.days or path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def bytes_of(self, entry: Mapping[str, Any]) -> bytes | None:
        """What left under a line of the ledger, or None where it isn't kept (any more).

        Raises DataError where the kept bytes are not those whose hashes the line holds.
        """
        try:
            content = (self.folder / f"{entry['seq']}.bin").read_bytes()
        except FileNotFoundError:
            return None
        parts = list(_parts(content, entry.get("objects", [])))
        if named(parts) != entry.get("objects") or sum(map(len, parts)) != len(content):
            raise DataError(
                f"line {entry['seq']}: the kept bytes are not those that left",
                where=str(self.folder / f"{entry['seq']}.bin"),
                hint="the ledger's hashes are what counts; compare with a backup",
            )
        return content


def _parts(content: bytes, objects: list[list[Any]]) -> Iterator[bytes]:
    place = 0
    for _, size in objects:
        yield content[place : place + size]
        place += size
