"""The ledger: one line for each message out of a site, or call to a server, written before it happens; each
line seals the one before.

JSON lines. `hash` is the SHA-256 of the line's other fields (sorted keys) but `signature`, which include
`previous`, the hash of the line before; so a line that was changed, dropped, added or moved breaks the chain
from there on. Number and hash are signed with the home's key before the line is written, and the signature is
in the line itself. So a process that is killed between a line and its head leaves a line that the next one
knows as the home's own, and goes on by itself; and a line that anybody else appended has no signature, no
later head can come to vouch for it, and nothing is appended after it until a person has looked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from fedai.errors import DataError
from fedai.heads import Head, Heads, append_whole, vouches

GENESIS = "0" * 64
LONGEST_LINE = 1_000_000
UNHEADED = 1  # lines at the end that a process killed between line and head leaves without one
TURN_S = 10.0  # how long to wait for another process's line
UNDONE = {"site": "nothing was sent", "server": "nothing was done"}
Entry = dict[str, Any]
Mark = tuple[int, str]
"""Number and hash of a line."""


def _hash(entry: Entry) -> str:
    sealed = {key: value for key, value in entry.items() if key not in ("hash", "signature")}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass
class Ledger:
    """Append-only record; any number of readers, and of writers, which wait for each other.

    `heads`: where each line's signed head goes; without, lines are neither signed nor looked for signatures.
    `wrote`: the line that this process wrote last.
    """

    path: Path
    heads: Heads | None = None
    side: Literal["site", "server"] = "site"
    wrote: Mark | None = None

    def append(self, **facts: Any) -> str:
        """Write one line and return its hash; it is on disk (fsync) when this returns, and so is its head.

        Raises DataError where it can't be written, or where what stands in the ledger isn't what this process
        wrote, the last head vouches for or the home's key has signed: then nothing may be sent or done.
        """
        with self._told(), self._turn() as file:
            last = self._vouched()
            entry: Entry = {
                "seq": last["seq"] + 1 if last else 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
            entry |= {**facts, "previous": last["hash"] if last else GENESIS}
            entry["hash"] = _hash(entry)
            head = self.heads.sign(entry["seq"], entry["hash"]) if self.heads else {}
            append_whole(file, _line(entry | ({"signature": head["signature"]} if head else {})))
            self.wrote = entry["seq"], entry["hash"]
            if self.heads:
                self.heads.keep(head, UNDONE[self.side])
        return str(entry["hash"])

    @contextmanager
    def _turn(self) -> Iterator[FileIO]:
        """The file to append to, while no other process does."""
        with self.path.open("ab", buffering=0) as file:
            until = time.monotonic() + TURN_S
            while not _locked(file):
                if time.monotonic() > until:
                    raise DataError(
                        f"another process holds the ledger; {UNDONE[self.side]}", where=str(self.path)
                    )
                time.sleep(0.005)
            yield file

    def _vouched(self) -> Entry | None:
        """The newest line, where every line after the last known one bears a signature of the home's key.

        Known are the line that this process wrote last and that of the last head.
        """
        last, key = self.last(), self.heads.public() if self.heads else ""
        marks = [mark for mark in (self.wrote, self._headed(last, key)) if mark is not None]
        if not marks:
            return last
        lines = {entry["seq"]: entry for entry in self._since(min(marks)[0])}
        for number, digest in sorted(marks):
            if number and (number not in lines or lines[number]["hash"] != digest):
                raise self._strange(number, "it is missing or was rewritten", "put the ledger back whole")
        known = max(marks)[0]
        for entry in lines.values():
            if entry["seq"] > known and not vouches(key, entry["seq"], entry["hash"], entry.get("signature")):
                advice = "find out who wrote it, and remove it and what follows"
                raise self._strange(entry["seq"], "it isn't signed, and no head vouches for it", advice)
        return last

    def _headed(self, last: Entry | None, key: str) -> Mark | None:
        """The line of the last head; None where this home signs nothing, or has never yet."""
        head = self.heads.last() if self.heads else {}
        if head and head["key"] != key:
            raise self._strange(head["lines"], "its head was signed by another key", "put the key back")
        if head:
            return head["lines"], head["hash"]
        return (0, GENESIS) if key or (self.heads and last and "signature" in last) else None

    def _since(self, number: int) -> list[Entry]:
        """The lines from `number` on, all if there is none such. Raises DataError where they are no chain."""
        found: list[Entry] = []
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
            for entry in map(_read, reversed(file.readlines())):
                if entry is None or (found and found[-1]["seq"] <= number):
                    break
                found.append(entry)
        found.reverse()
        if found and found[0]["seq"] > max(number, 1):  # further back, or changed there
            found = list(self.lines())
        before: list[Entry] = [{"seq": 0, "hash": GENESIS}] if found and found[0]["seq"] == 1 else []
        for one, other in pairwise([*before, *found]):
            if fault := _fault(other, one["seq"] + 1, one["hash"]):
                raise self._strange(other["seq"], fault, "put the ledger back whole")
        return found

    def _strange(self, number: int, fault: str, advice: str) -> DataError:
        return DataError(
            f"line {number}: {fault}; the ledger isn't continued, {UNDONE[self.side]}",
            where=f"{self.path}:{number}",
            hint=f"run `fedai {self.side} ledger verify`; keep a copy of ledger and heads, then {advice}",
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the ledger can't be used ({error.strerror}); {UNDONE[self.side]}",
                where=str(self.path),
                hint=f"is the disk full? then see `fedai {self.side} ledger verify`",
            ) from None

    def last(self) -> Entry | None:
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
                hint=f"run `fedai {self.side} ledger verify`; keep a copy, then remove a torn line",
            )
        return entry

    def lines(self) -> Iterator[Entry]:
        """Every line, oldest first. Raises DataError at a line that is not as `append` writes it."""
        if not self.path.exists():
            return
        with self._told(), self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                entry = _read(line)
                if entry is None:
                    raise _broken(self, number, "it is torn or was changed")
                yield entry

    def verify(self) -> int:
        """Check the chain alone (see `check`) and count its lines. Raises DataError naming a broken one."""
        return sum(1 for _ in self.chain())

    def chain(self) -> Iterator[Entry]:
        """Every line, oldest first. Raises DataError at the first broken one."""
        previous = GENESIS
        for number, entry in enumerate(self.lines(), start=1):
            if fault := _fault(entry, number, previous):
                raise _broken(self, number, fault)
            previous = entry["hash"]
            yield entry


@dataclass(frozen=True)
class Verified:
    """What `check` found whole: lines, heads beside them, heads of a witness; `unheaded` of the lines are
    signed and have no head yet (at most one, of a process that was killed or is writing).
    """

    lines: int
    heads: int
    witnessed: int
    unheaded: int


def check(ledger: Ledger, heads: Heads, told: Sequence[Head] = ()) -> Verified:
    """Hold chain, signatures and heads against each other, `told` (a witness's) too. Raises DataError naming
    the first line that is broken, missing, rewritten or known to nobody.
    """
    own, lines = heads.all(), list(ledger.chain())  # in this order: somebody may be writing
    key, since = heads.public(), heads.all()
    covered = max((int(head["lines"]) for head in since), default=0)
    if key and len(lines) > covered + UNHEADED:
        raise _broken(ledger, covered + 1, "no signed head vouches for it")
    if key:
        _check_signatures(ledger, lines, since, key)
    for head in sorted([*own, *told], key=lambda head: int(head["lines"])):
        _check_head(ledger, lines, head, key)
    return Verified(len(lines), len(own), len(told), max(0, len(lines) - covered) if key else 0)


def _check_signatures(ledger: Ledger, lines: list[Entry], heads: list[Entry], key: str) -> None:
    """Each line from the first signed one on is signed; only those of earlier releases, before it, aren't."""
    known = {head["lines"]: head["signature"] for head in heads if head["key"] == key}
    first = next((line["seq"] for line in lines if "signature" in line), max(known, default=0) + 1)
    for line in lines[first - 1 :]:
        number, signature = line["seq"], line.get("signature")
        if signature is None:
            raise _broken(ledger, number, "it isn't signed: it is not known to be this home's")
        if known.get(number) != signature and not vouches(key, number, line["hash"], signature):
            raise _broken(ledger, number, "its signature is not of this home's key")


def _check_head(ledger: Ledger, lines: list[Entry], head: Head, key: str) -> None:
    if head["key"] != key:
        raise _broken(ledger, head["lines"], "its head was signed by another key than this home's")
    if head["lines"] > len(lines):
        raise _broken(ledger, len(lines) + 1, f"it is missing; a head vouches for {head['lines']} lines")
    if lines[head["lines"] - 1]["hash"] != head["hash"]:
        raise _broken(ledger, head["lines"], "it was rewritten after its head was signed")


def _broken(ledger: Ledger, line: int, fault: str) -> DataError:
    return DataError(f"line {line}: {fault}", where=f"{ledger.path}:{line}", hint="compare with a backup")


def _locked(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=True).encode() + b"\n"


def _read(line: bytes) -> Entry | None:
    """The entry of a line, or None unless the line is, byte for byte, what `append` writes for it."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and type(entry.get("seq")) is int and _line(entry) == line
    return entry if whole else None


def _content_fault(entry: Entry) -> str:
    return "" if entry.get("hash") == _hash(entry) else "its content doesn't match its hash"


def _fault(entry: Entry, number: int, previous: str) -> str:
    if fault := _content_fault(entry):
        return fault
    if entry.get("previous") != previous:
        return "it doesn't follow the line before"
    if entry.get("seq") != number:
        return "its number is out of sequence"
    return ""
