"""The head of a ledger: number and hash of its last line, signed by the home's ledger key.

Heads are kept beside the ledger and at a witness, where one is named. A site's travels with each answer, so
that the server holds what the site can't rewrite any more; whoever has one can say later whether the ledger
is still the one that it was.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedai.errors import DataError
from fedai.signatures import is_signed, public_key, read_key, sign, write_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Head = Mapping[str, Any]
"""lines: int, hash: 64 hex digits, key: 64, signature: 128."""
MOST_LINES = 2**53
PATTERNS = {name: re.compile(f"[0-9a-f]{{{digits}}}") for name, digits in
            (("hash", 64), ("key", 64), ("signature", 128))}  # fmt: skip


def make_head(lines: int, digest: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign number and hash of a ledger's last line."""
    signature = sign("ledger head", {"lines": lines, "hash": digest}, key)
    return {"lines": lines, "hash": digest, "key": public_key(key), "signature": signature}


def head_fault(head: object) -> str:
    """What is wrong with a head by itself, or nothing. A sound one holds no more than it must."""
    if not isinstance(head, Mapping) or set(head) != {"lines", *PATTERNS}:
        return "the ledger's head has other parts than a head has"
    if type(head["lines"]) is not int or not 0 < head["lines"] <= MOST_LINES:
        return "the ledger's head has no number of lines"
    odd = [name for name, pattern in PATTERNS.items() if not _is_hex(head[name], pattern)]
    if odd:
        return f"the ledger's head has an odd {odd[0]}"
    facts = {"lines": head["lines"], "hash": head["hash"]}
    if not is_signed("ledger head", facts, head["key"], head["signature"]):
        return "the ledger's head is not signed by its key"
    return ""


def vouches(key: str, lines: int, digest: str, signature: object) -> bool:
    """Whether this is the signature of `key` over number and hash of a line."""
    head = {"lines": lines, "hash": digest, "key": key, "signature": signature}
    return not head_fault(head)


def _is_hex(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def contradiction(before: Head, now: Head) -> str:
    """Why two sound heads of one site, in this order, can't be of one append-only ledger; else nothing."""
    if before["key"] != now["key"]:
        return "signed by another key"
    if now["lines"] < before["lines"]:
        return f"{now['lines']} lines, there were {before['lines']} before"
    if now["lines"] == before["lines"] and now["hash"] != before["hash"]:
        return f"line {now['lines']} has another hash than before"
    return ""


@dataclass(frozen=True)
class Heads:
    """Where a ledger's heads are written. `key`: made at first use where a home has none."""

    own: Path
    key: Path
    witness: Path | None = None

    def public(self) -> str:
        """The key that signs; empty where none was made yet."""
        return public_key(read_key(self.key)) if self.key.exists() else ""

    def sign(self, lines: int, digest: str) -> dict[str, Any]:
        """The head of a line, for `keep`."""
        if not self.key.exists():
            self.key.parent.mkdir(parents=True, exist_ok=True)
            write_key(self.key)
        return make_head(lines, digest, read_key(self.key))

    def keep(self, head: Head, undone: str = "nothing was sent") -> None:
        """Append a head everywhere. Raises DataError where one place can't be written; it says `undone`."""
        for path in filter(None, (self.own, self.witness)):
            try:
                _append(path, json.dumps(head).encode() + b"\n")
            except OSError as error:
                raise DataError(
                    f"the ledger's head can't be written ({error.strerror}); {undone}",
                    where=str(path),
                    hint="is there room, and the witness's folder? `witness` in site.yaml names it",
                ) from None

    def last(self) -> dict[str, Any]:
        """The newest head, or nothing where none was made."""
        if not self.own.exists():
            return {}
        with self.own.open("rb") as file:
            file.seek(max(0, self.own.stat().st_size - 2000))
            tail = file.read().removesuffix(b"\n").rpartition(b"\n")[2]
        head = _head_in(tail + b"\n")
        if isinstance(head, str):
            what, hint = f"the last head can't be used: {head}", "keep a copy, then remove a torn line"
            raise DataError(what, where=str(self.own), hint=f"run `ledger verify`; {hint}")
        return head

    def all(self) -> list[dict[str, Any]]:
        """Every head beside the ledger. Raises DataError at a line that is none."""
        return list(heads_in(self.own)) if self.own.exists() else []


def heads_in(path: Path) -> Iterator[dict[str, Any]]:
    """Every head of a file. Raises DataError at a line that is none."""
    with path.open("rb") as file:
        for at, line in enumerate(file, start=1):
            head = _head_in(line)
            if isinstance(head, str):
                raise DataError(f"head {at}: {head}", where=f"{path}:{at}", hint="compare with a copy")
            yield head


def _head_in(line: bytes) -> dict[str, Any] | str:
    """The head of a line as `keep` writes it, or what is wrong with it."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return "it is torn or was changed"
    if fault := head_fault(head):
        return fault
    return dict(head) if json.dumps(head).encode() + b"\n" == line else "it was changed"


def _append(path: Path, line: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        append_whole(file, line)


def append_whole(file: FileIO, line: bytes) -> None:
    """Write a line at the end, unbuffered, and have it on disk; or nothing of it. Raises OSError."""
    whole = file.seek(0, os.SEEK_END)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError:
        file.truncate(whole)  # half a line would stop every later one
        raise
