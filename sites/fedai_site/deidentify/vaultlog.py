"""The log of a vault: each look back, one JSON line each, so that neither a change nor a cut goes unnoticed.

Each line has its number, the hash of the line before, and an HMAC-SHA-256 under a key of its own. The key of
the next line is derived from it, one way, and takes its place (forward-secure, as in Schneier and Kelsey,
"Secure audit logs to support computer forensics", 1999): whoever gets hold of a vault can't rewrite what was
logged before. The vault's database keeps the number of lines, the last line and the current key; the first
key comes from the vault's private key, which takes both shares. So every opening checks numbers, chain and
end, and a look back all of the HMACs as well.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from fedai.errors import RefusedByPolicy

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    lines INTEGER NOT NULL, last BLOB NOT NULL,        -- how many, and the last, with its line feed
    key BLOB NOT NULL,                                 -- of the next line
    salt BLOB NOT NULL                                 -- of the first key
)
"""
LOG, DATABASE = "log.jsonl", "tokens.sqlite"
SALT_BYTES = 16
HINT = "restore it; if it is lost, both persons may begin a new one: fedai site deid vault log --help"


@dataclass(frozen=True)
class _End:
    """What the database knows of the log."""

    lines: int
    last: bytes
    key: bytes
    salt: bytes


def begin(folder: Path, secret: bytes) -> None:
    """Begin an empty log in a vault's database. `secret`: what only both shares together give."""
    salt = secrets.token_bytes(SALT_BYTES)
    with closing(_database(folder)) as database, database:
        database.execute(SCHEMA)
        row = (b"", _first(secret, salt), salt)
        database.execute("INSERT OR REPLACE INTO log VALUES (1, 0, ?, ?, ?)", row)


def append(folder: Path, entry: Mapping[str, Any]) -> None:
    """Log something; on disk when this returns. A log that doesn't check goes on, as broken as it was."""
    with _locked(folder) as file, closing(_database(folder)) as database:
        end = _end(database)
        _complete(file, end)
        body = {
            "number": end.lines + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "before": _hash(end.last),
            **entry,
        }
        line = json.dumps({**body, "mac": _mac(end.key, body)}).encode() + b"\n"
        with database:
            changes = (end.lines + 1, line, _next(end.key))
            database.execute("UPDATE log SET lines = ?, last = ?, key = ?", changes)
        _write(file, line)


def check(folder: Path, secret: bytes = b"") -> list[dict[str, Any]]:
    """All entries, the oldest first. With the secret that it was begun with their HMACs are checked, too.

    Raises RefusedByPolicy for a log that was changed, cut short or taken away.
    """
    with closing(_database(folder)) as database:
        end, raw = _end(database), list[bytes]()
        if end.lines or (folder / LOG).exists():
            with _locked(folder) as file:
                end = _end(database)
                _complete(file, end)
                file.seek(0)
                raw = file.read().splitlines(keepends=True)
    entries = _chained(folder, raw, end)
    if secret:
        _check_macs(folder, entries, _first(secret, end.salt), end.key)
    return entries


def _chained(folder: Path, raw: list[bytes], end: _End) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(raw, 1):
        entry = _parsed(line)
        if (entry.get("number"), entry.get("before")) != (number, _hash(raw[number - 2] if entries else b"")):
            raise _broken(folder, f"line {number} isn't what followed on the line before")
        entries.append(entry)
    if len(raw) != end.lines or (raw and raw[-1] != end.last):
        raise _broken(folder, f"it has {len(raw)} lines and had {end.lines}, or ends otherwise")
    return entries


def _check_macs(folder: Path, entries: list[dict[str, Any]], key: bytes, last_key: bytes) -> None:
    for entry in entries:
        body = {name: value for name, value in entry.items() if name != "mac"}
        if not hmac.compare_digest(_mac(key, body), str(entry.get("mac"))):
            raise _broken(folder, f"line {entry['number']} was not written by this vault")
        key = _next(key)
    if not hmac.compare_digest(key, last_key):
        raise _broken(folder, "lines are missing at its end")


def set_aside(folder: Path) -> str:
    """Put a log that doesn't check aside; its new name, '' if there is none."""
    if not (folder / LOG).exists():
        return ""
    numbers = (number for number in range(1, 1 << 30) if not (folder / f"log.broken-{number}.jsonl").exists())
    aside = folder / f"log.broken-{next(numbers)}.jsonl"
    (folder / LOG).rename(aside)
    return aside.name


def _broken(folder: Path, what: str) -> RefusedByPolicy:
    return RefusedByPolicy(f"the vault's log was changed or cut: {what}", where=str(folder / LOG), hint=HINT)


@contextmanager
def _locked(folder: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _complete(file: BinaryIO, end: _End) -> None:
    """The last line is in the database before it is in the file: after a power cut, it is written again."""
    file.seek(0)
    content = file.read()
    whole, torn = content.count(b"\n"), content.rpartition(b"\n")[2]
    if end.lines and whole == end.lines - 1 and end.last.startswith(torn):
        before = content[: len(content) - len(torn)].splitlines(keepends=True)
        if json.loads(end.last)["before"] == _hash(before[-1] if before else b""):
            _write(file, end.last[len(torn) :])


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / DATABASE, timeout=60)


def _end(database: sqlite3.Connection) -> _End:
    database.execute(SCHEMA)
    row = database.execute("SELECT lines, last, key, salt FROM log").fetchone()
    if row is None:
        raise RefusedByPolicy("the vault's log was changed or cut: its end isn't known any more", hint=HINT)
    return _End(*row)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _hash(line: bytes) -> str:
    return sha256(line).hexdigest() if line else ""


def _mac(key: bytes, body: Mapping[str, Any]) -> str:
    return hmac.new(key, json.dumps(body, sort_keys=True).encode(), sha256).hexdigest()


def _first(secret: bytes, salt: bytes) -> bytes:
    return hmac.digest(secret, b"fedai vault log: first line" + salt, sha256)


def _next(key: bytes) -> bytes:
    return hmac.digest(key, b"fedai vault log: next line", sha256)
