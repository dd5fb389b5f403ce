"""What can happen to an attribute, and the values that take the place of removed ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """One of these happens to each attribute, at every depth."""

    KEEP = "keep"  # passed through as it is
    REMOVE = "remove"
    EMPTY = "empty"  # zero length
    DUMMY = "dummy"  # a fixed value that fits the representation
    UID = "uid"  # well-known UIDs stay, all others are mapped
    PSEUDONYM = "pseudonym"
    DATE = "date"  # moved, cut to the year or kept, as the profile says
    CLEAN = "clean"  # text without what isn't vocabulary
    BAND = "band"  # a patient's age, size or weight, extremes cut off
    MEANING = "meaning"  # the text that the code's own scheme gives it
    PRIVATE = "private"  # kept if it is known to be safe by its creator
    DESCEND = "descend"  # a sequence stays, each of its items is cleaned by the same rules
    ICC = "colour profile"  # replaced by that of sRGB
    CONTENT = "content"  # content items stay or go by value type and concept


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to an attribute at its place, which rule says so, and why.

    `check` names what the value must pass to be kept (see checks.py), `otherwise` happens if it doesn't, or
    if cleaning leaves nothing of it.
    """

    action: Action
    rule: str
    why: str
    check: str = ""
    otherwise: Action = Action.REMOVE


DUMMY_TEXT = b"ANONYMIZED"
DUMMIES: dict[str, bytes] = {
    "DA": b"19000101",
    "TM": b"000000.000000",
    "DT": b"19000101000000",
    "AS": b"000Y",
    "DS": b"0",
    "IS": b"0",
    "UR": b"urn:anonymized",
    "UI": b"2.25.204364910482739520947103948572039485722",
    **dict.fromkeys(("OB", "OW", "UN", "US", "SS"), bytes(2)),
    **dict.fromkeys(("UL", "SL", "AT", "FL", "OF", "OL"), bytes(4)),
    **dict.fromkeys(("UV", "SV", "FD", "OD", "OV"), bytes(8)),
}
"""Representation -> dummy value, in either byte order; text for all others."""


def dummy(vr: str) -> bytes:
    """A value of the representation that says nothing about anybody."""
    return DUMMIES.get(vr, DUMMY_TEXT)
