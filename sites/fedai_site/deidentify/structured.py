"""Structured reports, item by item (PS3.15 E.3.4, Clean Structured Content Option, Table E.3.4-1).

What the table doesn't list is decided by the item's value type, and denied where that can hold a name. The
same holds for Acquisition Context (0040,0555) and Specimen Preparation (0040,0612) items.

A report may have nothing left but its title: whoever writes it has to see to that, since a Content Sequence
(0040,A730) can't be empty. `has_content` tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from importlib.resources import files


class Decision(StrEnum):
    """What happens to one content item."""

    KEEP = "keep"  # its value stays (codes by the rule for codes; text without the patient's own words)
    UID = "uid"  # kept, the UIDs in it are mapped
    DATE = "date"  # kept, its date or time goes through `dates.Dates.value`
    CLEAN = "clean"  # kept, its text goes through `freetext.clean_text`
    DUMMY = "dummy"  # kept, its value is replaced by one that says nothing
    REMOVE = "remove"  # goes, with everything below it


REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})
DATES = frozenset({"DATE", "TIME", "DATETIME"})
HARMLESS = frozenset({"CONTAINER", "CODE", "NUM", "SCOORD", "SCOORD3D", "TCOORD"})
CHARACTERISTICS = frozenset({
    ("30525-0", "LN"), ("29553-5", "LN"), ("63900-5", "LN"), ("424144002", "SCT"), ("397669002", "SCT"),
    ("8302-2", "LN"), ("3137-7", "LN"), ("50373000", "SCT"), ("1153637007", "SCT"),
    ("29463-7", "LN"), ("3141-9", "LN"), ("27113001", "SCT"), ("39156-5", "LN"), ("60621009", "SCT"),
    ("46098-0", "LN"), ("76689-9", "LN"), ("263495000", "SCT"),
})  # fmt: skip
"""Ages, sizes, weights and sexes of the patient by codes that the table doesn't list; as (121033, DCM)."""
DATE_OPTIONS = frozenset({"full-dates", "modified-dates"})


@cache
def load_concepts() -> dict[tuple[str, str, str], tuple[str, dict[str, str]]]:
    """(code, scheme, value type) -> basic action and the actions of options, by their names in profiles."""
    data = json.loads(files(__package__).joinpath("content_items.json").read_text(encoding="utf-8"))
    concepts: dict[tuple[str, str, str], tuple[str, dict[str, str]]] = {}
    for codes, value_type, basic, options in data["rows"]:
        entry = basic, dict(option.split(":") for option in options.split())
        concepts.update({(*code.split("|", 1), value_type): entry for code in codes})
    return concepts


def decide(
    value_type: str, code: str, scheme: str, relationship: str = "", options: frozenset[str] = frozenset()
) -> Decision:
    """The decision for one content item.

    `value_type` is (0040,A040), `code` and `scheme` those of its concept name, `relationship` (0040,A010).
    `options` are the profile's, as on the command line: 'uids', 'device', 'institution', 'patient',
    'full-dates', 'modified-dates', 'descriptors'.
    """
    value_type, code, scheme = (text.strip(" \0") for text in (value_type.upper(), code, scheme))
    listed = load_concepts().get((code, scheme, value_type))
    if listed is None:
        return _unlisted(value_type, code, scheme, relationship.strip(" \0").upper(), options)
    basic, by_option = listed
    chosen = {action for option, action in by_option.items() if option in options}
    if value_type in DATES and chosen:
        return Decision.DATE
    if "K" in chosen:
        return Decision.KEEP
    if "C" in chosen:
        return Decision.CLEAN
    return _basic(basic, value_type)


def _basic(action: str, value_type: str) -> Decision:
    """X, D or X/D of the Basic Profile. X/D becomes D: valid whether the template needs the item or not."""
    if action == "X":
        return Decision.REMOVE
    return Decision.UID if value_type in REFERENCES or value_type == "UIDREF" else Decision.DUMMY


def _unlisted(
    value_type: str, code: str, scheme: str, relationship: str, options: frozenset[str]
) -> Decision:
    if (code, scheme) in CHARACTERISTICS and "patient" not in options:
        return Decision.REMOVE
    if value_type in HARMLESS:
        return Decision.KEEP
    if value_type in REFERENCES or value_type == "UIDREF":
        return Decision.KEEP if "uids" in options else Decision.UID
    if value_type in DATES:
        return Decision.DATE if options & DATE_OPTIONS else Decision.REMOVE
    is_descriptor = value_type == "TEXT" and relationship != "HAS OBS CONTEXT"
    return Decision.CLEAN if is_descriptor and "descriptors" in options else Decision.REMOVE


def has_content(decisions: Iterable[Decision]) -> bool:
    """Whether anything stays below a report's title: without that it isn't worth keeping, and not valid."""
    return any(decision is not Decision.REMOVE for decision in decisions)
