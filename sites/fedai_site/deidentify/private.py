"""Private attributes that are known to be safe (PS3.15 E.3.10, Retain Safe Private Option). All others go.

Known from Table E.3.10-1, from a public archive's list (numbers and codes only, if asked for), or because the
object says so itself in its Private Data Element Characteristics Sequence (0008,0300) (PS3.3 C.12.1.1.7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

Action = Literal["K", "C", "D", "Z", "X", "U"]
"""Keep; clean (dates: shift and the like); dummy; zero length; remove; map the UID."""

STRICTEST: tuple[Action, ...] = ("X", "Z", "D", "U", "C", "K")
TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})
CLASSES = (
    TEXT,
    frozenset({"IS", "DS"}),
    frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"}),
    frozenset({"CS"}),
    frozenset({"UI"}),
    frozenset({"SQ"}),
    frozenset({"DA", "DT", "TM"}),
)
"""Representations that hold the same kind of value. What is in none of these (OB, OW, UN, PN, AE, AS, UR ...)
isn't kept even where it is called safe: bulk data may hold whole headers (PS3.15 E.3.10, note 2).
"""
NUMBER = re.compile(r"[-+]?(?:[0-9]{1,8}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
CODE = re.compile(r"(?!.*[0-9]{6})[A-Z0-9_ ]{0,16}")
PLAIN = re.compile(r"(?!.*[\^@])(?!.*[0-9]{6})[ -~\r\n\t]{0,128}", re.DOTALL)
WORD = re.compile(r"[^\W_]+")


@cache
def load_table() -> dict[str, dict[tuple[str, int, int], str]]:
    """'standard' and 'archive': (creator, group, low byte of the element) -> VR, '??' if none is given."""
    data = json.loads(files(__package__).joinpath("private_safe.json").read_text(encoding="utf-8"))
    return {name: dict(_entries(rows)) for name, rows in data["rows"].items()}


def _entries(rows: Mapping[str, str]) -> Iterable[tuple[tuple[str, int, int], str]]:
    for block, entries in rows.items():
        creator, group = block.rsplit("|", 1)
        for entry in entries.split():
            yield (creator, int(group, 16), int(entry[:2], 16)), entry[2:]


def safe_vr(creator: str, group: int, element: int, *, archive: bool = False) -> str | None:
    """The representation of a private attribute that is known to be safe, None for all others.

    `element` may be the whole element number: its low byte counts. With `archive` the public archive's list
    counts too.
    """
    key = (creator.strip(" \0"), group, element & 0xFF)
    table = load_table()
    vr = table["standard"].get(key) or (table["archive"].get(key) if archive else None)
    return vr if _kind(vr) else None


def is_safe(creator: str, group: int, element: int, *, archive: bool = False) -> bool:
    """Whether the attribute is known to be safe and of a representation that can be checked."""
    return safe_vr(creator, group, element, archive=archive) is not None


def _kind(vr: str | None) -> frozenset[str] | None:
    return next((kind for kind in CLASSES if vr in kind), None)


@dataclass(frozen=True, slots=True)
class Block:
    """One item of (0008,0300) in plain values.

    (0008,0301) group, (0008,0302) creator, (0008,0303) status SAFE, UNSAFE or MIXED, (0008,0304) the elements
    that don't identify, and from (0008,0305) each identifying element's action (0008,0307): D, Z, X or U.
    """

    group: int
    creator: str
    status: str
    harmless: frozenset[int] = frozenset()
    actions: Mapping[int, str] = field(default_factory=dict)

    def action(self, element: int) -> Action | None:
        """What this item says about an element's low byte; None if nothing."""
        said = self.actions.get(element)
        if said is not None:
            return next((action for action in STRICTEST[:4] if action == said), "X")
        if self.status == "SAFE" or (self.status == "MIXED" and element in self.harmless):
            return "K"
        return "X" if self.status in ("UNSAFE", "MIXED") else None


def said_action(blocks: Iterable[Block], creator: str, group: int, element: int) -> Action | None:
    """What an object says about one of its own private attributes: the strictest of several things."""
    name = creator.strip(" \0")
    said = {
        block.action(element & 0xFF)
        for block in blocks
        if block.group == group and block.creator.strip(" \0") == name
    }
    return next((action for action in STRICTEST if action in said), None)


def decide(
    creator: str, group: int, element: int, vr: str, blocks: Iterable[Block] = (), *, archive: bool = False
) -> tuple[Action, str]:
    """What happens to a private attribute that is stored with `vr`, and the VR that it has.

    An action that the object itself asks for comes before the tables; otherwise what isn't known to be safe,
    isn't of the representation that it should be, or can't be checked, is removed. UIDs are mapped, dates
    cleaned. For 'K' the value of a text, code or number is still to be checked with `is_clean`.
    """
    listed = safe_vr(creator, group, element, archive=archive)
    said = said_action(blocks, creator, group, element)
    if said in ("X", "Z", "D", "U"):
        return said, vr
    if said is None and listed is None:
        return "X", vr
    real = listed if listed and vr in ("", "UN") else vr
    kind = _kind(real)
    if kind is None or (listed is not None and real not in (_kind(listed) or ())):
        return "X", vr
    return ("U" if real == "UI" else "C" if real in ("DA", "DT", "TM") else "K"), real


def is_clean(vr: str, values: Iterable[str], known: frozenset[str]) -> bool:
    """Whether values are what their representation says, plain, short, and hold no known name or number.

    `known` is in upper case. Binary numbers (US, FL ...) always are.
    """
    pattern = {"IS": NUMBER, "DS": NUMBER, "CS": CODE}.get(vr, PLAIN if vr in TEXT else None)
    if pattern is None:
        return vr in CLASSES[2]
    texts = [value.strip(" \0") for value in values]
    fits = all(not text or pattern.fullmatch(text) for text in texts)
    return fits and known.isdisjoint(word for text in texts for word in WORD.findall(text.upper()))
