"""Signed heads of the ledger, kept where the ledger's own disk can't take them back.

After each line of the ledger its number and hash are signed with the site's ledger key and appended to
`ledger.heads.jsonl` beside it, and to a file of the witness, where site.yaml names one: a folder on storage
of somebody else's. The server gets each head too, with the answers. `verify` holds the ledger against them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, DataError
from fedai.heads import Heads, head_fault, heads_in
from fedai.ledger import Ledger, Verified, check
from fedai_site.home import SiteHome

HEADS = "-ledger-heads.jsonl"  # a site's file at the witness, after its name


def ledger_of(home: SiteHome) -> Ledger:
    """The home's ledger, whose every line is sealed by a signed head."""
    return Ledger(home.ledger, heads_of(home))


def heads_of(home: SiteHome) -> Heads:
    """Where the heads of the home's ledger are."""
    folder, name = home.settings.witness, f"{home.settings.name}{HEADS}"
    return Heads(home.ledger_heads, home.ledger_key, home.folder / folder / name if folder else None)


def verify(home: SiteHome, witness: Path | None = None) -> Verified:
    """Check chain and heads. Raises DataError naming the first line that is broken, missing or rewritten.

    `witness`: a file of heads, a run's record.json from the coordinator, or the folder of either; without
    it, that of site.yaml, which must be there. Raises ConfigError where it holds no head.
    """
    heads = heads_of(home)
    told = _witnessed(witness or heads.witness, home.settings.name, asked=witness is not None)
    found = check(Ledger(home.ledger), heads, told)
    if witness is None and heads.witness and not heads.witness.exists() and found.heads:
        raise DataError(
            "the witness isn't there, so that nobody can tell whether lines were cut off",
            where=str(heads.witness),
            hint="is its folder mounted? One that is new has a file after the next line",
        )  # fmt: skip
    return found


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
    return lambda path, _: heads_in(path)


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
