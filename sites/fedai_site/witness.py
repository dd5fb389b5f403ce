"""Signed heads of the ledger, kept where the ledger's own disk can't take them back.

After each line of the ledger its number and hash are signed with the site's ledger key and appended to
`ledger.heads.jsonl` beside it, and to a file of the witness, where site.yaml names one: a folder on storage
of somebody else's. The server gets each head too, with the answers. `verify` holds the ledger against them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, DataError
from fedai.heads import Head, head_fault, make_head
from fedai.signatures import public_key, read_key, write_key
from fedai_site.home import SiteHome
from fedai_site.ledger import Ledger

HEADS = "-ledger-heads.jsonl"  # a site's file at the witness, after its name
UNSIGNED = 1  # lines that a crash between line and head may leave without one


@dataclass(frozen=True)
class Heads:
    """Where a ledger's heads are written. `key`: made at first use where a home has none."""

    own: Path
    key: Path
    witness: Path | None = None

    def seal(self, lines: int, digest: str) -> None:
        """Sign a head and append it everywhere. Raises DataError where one place can't be written."""
        if not self.key.exists():
            self.key.parent.mkdir(parents=True, exist_ok=True)
            write_key(self.key)
        line = json.dumps(make_head(lines, digest, read_key(self.key))).encode() + b"\n"
        for path in filter(None, (self.own, self.witness)):
            _append(path, line)

    def last(self) -> dict[str, Any]:
        """The newest head, or nothing where none was made."""
        if not self.own.exists():
            return {}
        with self.own.open("rb") as file:
            file.seek(max(0, self.own.stat().st_size - 2000))
            tail = file.read().removesuffix(b"\n").rpartition(b"\n")[2]
        head = _head_in(tail + b"\n")
        if isinstance(head, str):
            raise DataError(
                f"the last head of the ledger can't be used: {head}",
                where=str(self.own),
                hint="run `fedai site ledger verify`",
            )
        return head

    def all(self) -> list[dict[str, Any]]:
        """Every head beside the ledger. Raises DataError at a line that is none."""
        return list(_heads_in(self.own)) if self.own.exists() else []


def ledger_of(home: SiteHome) -> Ledger:
    """The home's ledger, whose every line is sealed by a signed head."""
    return Ledger(home.ledger, heads_of(home).seal)


def heads_of(home: SiteHome) -> Heads:
    """Where the heads of the home's ledger are."""
    folder, name = home.settings.witness, f"{home.settings.name}{HEADS}"
    return Heads(home.ledger_heads, home.ledger_key, home.folder / folder / name if folder else None)


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"the ledger's head can't be written ({error.strerror}); nothing was sent",
            where=str(path),
            hint="is the witness's folder there? `witness` in site.yaml names it",
        ) from None


def _head_in(line: bytes) -> dict[str, Any] | str:
    """The head of a line as `seal` writes it, or what is wrong with it."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return "it is torn or was changed"
    if fault := head_fault(head):
        return fault
    return dict(head) if json.dumps(head).encode() + b"\n" == line else "it was changed"


@dataclass(frozen=True)
class Verified:
    """What `verify` found whole: lines of the ledger, heads beside it, heads of the witness."""

    lines: int
    heads: int
    witnessed: int


def verify(home: SiteHome, witness: Path | None = None) -> Verified:
    """Check chain and heads. Raises DataError naming the first line that is broken, missing or rewritten.

    `witness`: a file of heads, a run's record.json from the coordinator, or the folder of either; without
    it, that of site.yaml, which must be there. Raises ConfigError where it holds no head.
    """
    heads, ledger = heads_of(home), Ledger(home.ledger)
    told = _witnessed(witness or heads.witness, home.settings.name, asked=witness is not None)
    own, hashes = heads.all(), ledger.hashes()  # in this order: the agent may be writing
    key = public_key(read_key(heads.key)) if heads.key.exists() else ""
    if key:
        _check_covered(ledger, len(hashes), heads.all())
    for head in sorted([*own, *told], key=lambda head: int(head["lines"])):
        _check_head(ledger, hashes, head, key)
    if witness is None and heads.witness and not heads.witness.exists() and own:
        raise DataError(
            "the witness isn't there, so that nobody can tell whether lines were cut off",
            where=str(heads.witness),
            hint="is its folder mounted? One that is new has a file after the next line",
        )  # fmt: skip
    return Verified(len(hashes), len(own), len(told))


def _check_covered(ledger: Ledger, lines: int, heads: list[dict[str, Any]]) -> None:
    covered = max((int(head["lines"]) for head in heads), default=0)
    if lines > covered + UNSIGNED:
        raise _broken(ledger, covered + 1, "no signed head vouches for it")


def _check_head(ledger: Ledger, hashes: list[str], head: Head, key: str) -> None:
    if head["key"] != key:
        raise _broken(ledger, head["lines"], "its head was signed by another key than this home's")
    if head["lines"] > len(hashes):
        raise _broken(ledger, len(hashes) + 1, f"it is missing; a head vouches for {head['lines']} lines")
    if hashes[head["lines"] - 1] != head["hash"]:
        raise _broken(ledger, head["lines"], "it was rewritten after its head was signed")


def _broken(ledger: Ledger, line: int, fault: str) -> DataError:
    return DataError(f"line {line}: {fault}", where=f"{ledger.path}:{line}", hint="compare with a backup")


def _heads_in(path: Path) -> Iterator[dict[str, Any]]:
    """Every head of a file. Raises DataError at a line that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            head = _head_in(line)
            if isinstance(head, str):
                raise DataError(
                    f"head {number}: {head}", where=f"{path}:{number}", hint="compare with a copy"
                )
            yield head


def _witnessed(witness: Path | None, site: str, *, asked: bool) -> list[dict[str, Any]]:
    if witness is None or (not asked and not witness.exists()):
        return []
    places = (witness.glob(f"{site}{HEADS}"), witness.rglob("record.json"))
    files = sorted(path for place in places for path in place) if witness.is_dir() else [witness]
    found = [head for path in files for head in _reader(path)(path, site)]
    if not found:
        raise ConfigError(
            f"{witness} holds no head of this ledger", hint="name a file of heads or a run's record.json"
        )
    return found


def _reader(path: Path) -> Callable[[Path, str], Iterator[dict[str, Any]]]:
    if path.suffix == ".json":
        return _recorded
    return lambda path, _: _heads_in(path)


def _recorded(path: Path, site: str) -> Iterator[dict[str, Any]]:
    """The heads that a run's record holds of this site."""
    try:
        told = json.loads(path.read_bytes())["ledger_heads"].get(site, [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path} is no record of a run", hint="ask the coordinator for it again") from None
    for number, head in enumerate(told, start=1):
        if fault := head_fault(head):
            raise DataError(f"head {number}: {fault}", where=str(path), hint="ask the coordinator why")
        yield dict(head)
