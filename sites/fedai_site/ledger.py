"""The ledger: one line for each message out, written before it leaves, each line sealing the one before.

JSON lines. `hash` is the SHA-256 of the line's other fields (sorted keys), which include `previous`, the
hash of the line before; so a line that was changed, dropped, added or moved breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedai.errors import DataError

GENESIS = "0" * 64
LONGEST_LINE = 1_000_000


def _hash(entry: dict[str, Any]) -> str:
    sealed = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass
class Ledger:
    """Append-only record of what left; one writer (the agent), any number of readers.

    `seal` is told number and hash of each new line, to sign them (see fedai_site.witness).
    """

    path: Path
    seal: Callable[[int, str], None] | None = None

    def append(self, **facts: Any) -> str:
        """Write one line and return its hash; it is on disk (fsync) when this returns.

        Raises DataError where it can't be written: then nothing may be sent.
        """
        last = self.last()
        entry: dict[str, Any] = {
            "seq": last["seq"] + 1 if last else 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        entry |= {**facts, "previous": last["hash"] if last else GENESIS}
        entry["hash"] = _hash(entry)
        with self._told(), self.path.open("ab") as file:
            whole = file.tell()
            try:
                file.write(_line(entry))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, whole)  # half a line would stop every later one
                raise
        if self.seal is not None:
            self.seal(entry["seq"], str(entry["hash"]))
        return str(entry["hash"])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the ledger can't be used ({error.strerror}); nothing was sent",
                where=str(self.path),
                hint="is the disk full? then see `fedai site ledger verify`",
            ) from None

    def last(self) -> dict[str, Any] | None:
        """The newest line. Raises DataError where it is torn or was changed (verify says which)."""
        if not self.path.exists() or not self.path.stat().st_size:
            return None
        with self._told(), self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - LONGEST_LINE))
            tail = file.read().removesuffix(b"\n").rpartition(b"\n")[2] + b"\n"
            file.seek(-1, os.SEEK_END)
            entry = _read(tail) if file.read() == b"\n" else None
        if entry is None or _content_fault(entry):
            raise DataError(
                "the last line of the ledger is torn or was changed",
                where=str(self.path),
                hint="run `fedai site ledger verify`; keep a copy, then remove a torn line",
            )
        return entry

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line, oldest first. Raises DataError at a line that is not as `append` writes it."""
        if not self.path.exists():
            return
        with self._told(), self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                entry = _read(line)
                if entry is None:
                    raise DataError(
                        f"line {number}: it is torn or was changed", where=f"{self.path}:{number}"
                    )
                yield entry

    def verify(self) -> int:
        """Check the chain and return the number of lines. Raises DataError naming the first broken line.

        Lines cut off at the end leave a chain that is whole: `fedai_site.witness.verify` holds it against
        signed heads as well.
        """
        return len(self.hashes())

    def hashes(self) -> list[str]:
        """The hash of each line, oldest first. Raises DataError naming the first broken line."""
        hashes = [GENESIS]
        for number, entry in enumerate(self.lines(), start=1):
            if fault := _fault(entry, number, hashes[-1]):
                raise DataError(
                    f"line {number}: {fault}", where=f"{self.path}:{number}", hint="compare with a backup"
                )
            hashes.append(entry["hash"])
        return hashes[1:]


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=True).encode() + b"\n"


def _read(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None unless the line is, byte for byte, what `append` writes for it."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and _line(entry) == line else None


def _content_fault(entry: dict[str, Any]) -> str:
    return "" if entry.get("hash") == _hash(entry) else "its content doesn't match its hash"


def _fault(entry: dict[str, Any], number: int, previous: str) -> str:
    if fault := _content_fault(entry):
        return fault
    if entry.get("previous") != previous:
        return "it doesn't follow the line before"
    if entry.get("seq") != number:
        return "its number is out of sequence"
    return ""
