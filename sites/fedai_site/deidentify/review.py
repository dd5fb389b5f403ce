"""The review of what is in quarantine: a list in words, and decisions that the next run acts on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, RefusedByPolicy
from fedai_site.deidentify.state import Source, State
from fedai_site.quarantine import WORDS, Reason

RELEASABLE = frozenset({Reason.TEXT_LEFT})
"""What a person who has looked at the picture may give out; all other reasons are mended, not decided."""
DECISIONS = ("release", "refuse")


def listed(private: Path) -> list[dict[str, Any]]:
    """What is in quarantine, each with its reason in words and what would free it. Raises ConfigError.

    `item` is the first 12 digits of the file's hash. Paths of sources are for eyes inside the hospital.
    """
    with _opened(private) as state:
        decisions = state.decisions()
        return [_item(private, source, decisions) for source in state.quarantined()]


def _opened(private: Path) -> State:
    if not (private / "state.sqlite").is_file():
        raise ConfigError(
            "there has been no run with this private folder", where=str(private), hint="give --private"
        )
    return State(private)


def _item(private: Path, source: Source, decisions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    what, frees = WORDS[Reason(source.state)]
    return {
        "item": source.input_sha256[:12],
        "reason": source.state,
        "words": f"{what}{f' ({source.detail})' if source.detail else ''}",
        "frees": frees,
        "source": str(source.path),
        "picture": str(private / source.picture) if source.picture else "",
        "releasable": Reason(source.state) in RELEASABLE,
        "decision": decisions.get(source.input_sha256, {}).get("decision", ""),
    }


def decide(private: Path, item: str, decision: str, *, by: str, reason: str) -> dict[str, Any]:
    """Record a decision about one item. Raises ConfigError for an unknown item or decision, RefusedByPolicy
    for what nobody may release and for a release without a reason.
    """
    if decision not in DECISIONS:
        raise ConfigError(f"there is no decision {decision!r}", hint=f"one of {', '.join(DECISIONS)}")
    with _opened(private) as state:
        found = [source for source in state.quarantined() if item and source.input_sha256.startswith(item)]
        if len(found) != 1:
            hint = "see the list: fedai site deid review OUT"
            raise ConfigError(f"{len(found)} items begin with {item!r}", hint=hint)
        if decision == "release":
            _check_release(Reason(found[0].state), reason)
        made = {
            "decision": decision,
            "about": found[0].state,
            "by": by,
            "reason": reason,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        state.decide(found[0].input_sha256, made)
        return {"item": item, **made}


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
        print(f"  source   {entry['source']}\n  to free  {entry['frees']}")
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
