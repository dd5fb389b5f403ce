"""Coded entries (PS3.3 8.8) and content items (PS3.3 C.17.3), as far as decisions hang on them."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedai_site.deidentify import structured
from fedai_site.deidentify.actions import Action, Decision
from fedai_site.deidentify.known import text_of

CONTENT_SEQUENCE = 0x0040A730
CONCEPT_NAME = 0x0040A043
VALUE_TYPE, RELATIONSHIP = 0x0040A040, 0x0040A010
TEXT, NAME = 0x0040A160, 0x0040A123
DATES = (0x0040A120, 0x0040A121, 0x0040A122)  # DateTime, Date, Time
UID = 0x0040A124
OWN = {"TEXT": TEXT, "PNAME": NAME, "DATETIME": DATES[0], "DATE": DATES[1], "TIME": DATES[2], "UIDREF": UID}
"""Value Type -> the attribute with the item's value (PS3.3 C.17.3.2.1); the others have no place there."""
RULE = "Table E.3.4-1"


@dataclass(frozen=True)
class Concept:
    """A coded entry, '' for what it hasn't."""

    value: str
    scheme: str
    meaning: str


def concept(item: Dataset, encodings: tuple[str, ...]) -> Concept:
    """The coded entry that an item is."""
    value, scheme, meaning = (_text(item, tag, encodings) for tag in (0x00080100, 0x00080102, 0x00080104))
    return Concept(value, scheme, meaning)


def _text(item: Dataset, tag: int, encodings: tuple[str, ...]) -> str:
    return text_of(item.get_item(tag), encodings).strip() if tag in item else ""


def decisions(
    item: Dataset, encodings: tuple[str, ...], options: frozenset[str]
) -> dict[int, Decision] | None:
    """What happens to the values of a content item instead of what the rules say; None if the item goes."""
    name = _concept_name(item, encodings)
    value_type, relationship = (_text(item, tag, encodings) for tag in (VALUE_TYPE, RELATIONSHIP))
    found = structured.decide(value_type, name.value, name.scheme, relationship, options)
    if found is structured.Decision.REMOVE:
        return None
    own = OWN.get(value_type)
    if found is structured.Decision.DUMMY and (own is None or own == UID):
        return None
    decided = {tag: Decision(Action.REMOVE, RULE, f"no value of {value_type}") for tag in OWN.values()}
    if own is not None:
        decided[own] = _of_value(own, found, f"{value_type}: {found.value}")
    return decided


def _of_value(tag: int, found: structured.Decision, why: str) -> Decision:
    """What happens to the value of an item that stays."""
    if found is structured.Decision.DUMMY:
        return Decision(Action.DUMMY, RULE, why)
    if found is structured.Decision.UID:
        return Decision(Action.UID, RULE, why)
    if found is structured.Decision.DATE:
        return Decision(Action.DATE, RULE, why, "", Action.DUMMY)
    if found is structured.Decision.CLEAN:
        return Decision(Action.CLEAN, RULE, why, "", Action.DUMMY)
    if tag == UID:
        return Decision(Action.KEEP, RULE, why, "a UID", Action.UID)
    return Decision(Action.KEEP, RULE, why, "no name or number of the patient", Action.DUMMY)


def _concept_name(item: Dataset, encodings: tuple[str, ...]) -> Concept:
    names = item[CONCEPT_NAME].value if CONCEPT_NAME in item else None
    if isinstance(names, Sequence) and names:
        return concept(names[0], encodings)
    return Concept("", "", "")
