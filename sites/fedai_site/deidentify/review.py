"""The review of what is in quarantine: a list in words, and decisions that the next run acts on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, RefusedByPolicy
from fedai_site.deidentify.state import Source, State
from fedai_site.quarantine import WORDS, Reason

RELEASABLE = frozenset({Reason.TEXT_LEFT, Reason.CONFLICT})
"""What a person who has looked may give out: text in its picture, or this of several contents of one object.

All other reasons are mended, not decided.
"""
DECISIONS = ("release", "refuse")


def listed(private: Path) -> list[dict[str, Any]]:
    """What is in quarantine, each with its reason in words and what would free it. Raises ConfigError.

    `item` is the first 12 digits of the file's hash, '' for one that can't be read; identical files are one
    item. Paths of sources are for eyes inside the hospital.
    """
    items: dict[tuple[str, str], list[Source]] = {}
    with _opened(private) as state:
        decisions = state.decisions()
        for source in state.quarantined():
            alike = (source.input_sha256 or str(source.path), source.state)
            items.setdefault(alike, []).append(source)
    return [_item(private, sources, decisions) for sources in items.values()]


def _opened(private: Path) -> State:
    if not (private / "state.sqlite").is_file():
        raise ConfigError(
            "there has been no run with this private folder",
            where=str(private),
            hint="give OUT of `deid run`, or a site's home; --private where the run had it",
        )
    return State(private)


def _item(private: Path, sources: list[Source], decisions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    source = sources[0]
    what, frees = WORDS[Reason(source.state)]
    return {
        "item": source.input_sha256[:12],
        "reason": source.state,
        "words": f"{what}{f' ({source.detail})' if source.detail else ''}",
        "frees": frees,
        "sources": [str(source.path) for source in sources],
        "picture": str(private / source.picture) if source.picture else "",
        "releasable": Reason(source.state) in RELEASABLE,
        "decision": decisions.get(source.input_sha256, {}).get("decision", ""),
    }


def decide(private: Path, item: str, decision: str, *, by: str, reason: str) -> dict[str, Any]:
    """Record a decision about one item, which covers all files with these bytes.

    Raises ConfigError for an unknown item or decision, RefusedByPolicy for what nobody may release and for a
    release without a reason.
    """
    if decision not in DECISIONS:
        raise ConfigError(f"there is no decision {decision!r}", hint=f"one of {', '.join(DECISIONS)}")
    with _opened(private) as state:
        found = [source for source in state.quarantined() if item and source.input_sha256.startswith(item)]
        contents = {source.input_sha256 for source in found}
        if len(contents) != 1:
            hint = "see the list: fedai site deid review OUT"
            raise ConfigError(f"{len(contents)} items begin with {item!r}", hint=hint)
        if decision == "release":
            _check_release(Reason(found[0].state), reason)
        made = {
            "decision": decision,
            "about": found[0].state,
            "before": _released_before(state, found[0].input_sha256),
            "by": by,
            "reason": reason,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        state.decide(found[0].input_sha256, made)
        return {"item": item, **made}


def _released_before(state: State, input_sha256: str) -> list[str]:
    """The reasons for which the same file was released earlier; that stays so."""
    earlier = state.decisions().get(input_sha256)
    if not earlier or earlier["decision"] != "release":
        return []
    return sorted({earlier["about"], *earlier.get("before", ())})


def _check_release(about: Reason, reason: str) -> None:
    if about not in RELEASABLE:
        what, frees = WORDS[about]
        raise RefusedByPolicy(f"an object that {what} can't be released by a decision", hint=frees)
    if not reason.strip():
        raise RefusedByPolicy("no release without a reason", hint="give --reason")


def walk(private: Path, items: Iterable[dict[str, Any]], *, by: str) -> None:
    """On a terminal: show each item that is still open and ask."""
    for entry in items:
        if entry["decision"]:
            continue
        print(f"\n{entry['item']}  {entry['reason']}: the object {entry['words']}")
        print("".join(f"  source   {path}\n" for path in entry["sources"]) + f"  to free  {entry['frees']}")
        if entry["picture"]:
            print(f"  picture  {entry['picture']}")
        answer = input(
            "  [r]elease, re[f]use, [s]kip, [q]uit? "
            if entry["releasable"]
            else "  re[f]use, [s]kip, [q]uit? "
        )
        choice = {"r": "release", "f": "refuse"}.get(answer.strip().lower()[:1])
        if answer.strip().lower().startswith("q"):
            return
        if choice and (choice == "refuse" or entry["releasable"]):
            decide(private, entry["item"], choice, by=by, reason=input("  why? "))
