"""Which Type (1, 1C, 2, 2C, 3) an attribute has where it stands, by the object's IOD (PS3.3).

Composite codes of Table E.1-1 hang on it, and whether something removed leaves a hole that makes the object
invalid.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

STRICTEST_FIRST = ("1", "1C", "2", "2C", "3")
COMMON_MODULES = (
    "patient",
    "general-study",
    "patient-study",
    "general-series",
    "frame-of-reference",
    "general-equipment",
    "general-image",
    "image-pixel",
    "sop-common",
)
"""What nearly all objects are made of; taken for those whose SOP Class nobody knows."""


@dataclass(eq=False)
class Level:
    """The attributes of an object, or of the items of one of its sequences: tag -> Type.

    A tag that isn't there isn't part of the IOD at this place.
    """

    types: dict[int, str]
    nodes: dict[int, frozenset[int]]
    is_top: bool = False
    levels: dict[int, Level] = field(default_factory=dict)

    def type(self, tag: int) -> str:
        """'1', '1C', '2', '2C', '3', or '' if the IOD doesn't have the attribute here."""
        return self.types.get(tag, "")

    def below(self, tag: int) -> Level:
        """The items of a sequence; those that the IOD doesn't have here are as they are anywhere else."""
        found = self.levels.get(tag)
        if found is None:
            nodes = self.nodes.get(tag)
            found = self.levels[tag] = _merged(nodes) if nodes else _anywhere(tag)
        return found


@cache
def _data() -> dict[str, Any]:
    data = json.loads(files(__package__).joinpath("iod.json").read_text(encoding="utf-8"))
    data["nodes"] = [{int(row[0], 16): row[1:] for row in node} for node in data["nodes"]]
    return dict(data)


def known_sop_classes() -> frozenset[str]:
    """The SOP classes whose IOD is known here."""
    return frozenset(_data()["head"]["sop_classes"])


@cache
def iod(sop_class: str) -> Level:
    """The top level of an object of this SOP Class."""
    head = _data()["head"]
    name = head["sop_classes"].get(sop_class)
    numbers = head["iods"][name] if name else [head["modules"][module] for module in COMMON_MODULES]
    merged = _merged(frozenset(numbers))
    return Level(merged.types, merged.nodes, is_top=True)


@cache
def _merged(numbers: frozenset[int]) -> Level:
    """Several modules as one: for each attribute the strictest Type that any of them gives it."""
    types: dict[int, str] = {}
    nodes: dict[int, set[int]] = defaultdict(set)
    for number in numbers:
        for tag, (kind, *child) in _data()["nodes"][number].items():
            types[tag] = min(types.get(tag, "3"), kind, key=STRICTEST_FIRST.index)
            nodes[tag].update(child)
    return Level(types, {tag: frozenset(found) for tag, found in nodes.items() if found})


@cache
def _everywhere() -> dict[int, frozenset[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for node in _data()["nodes"]:
        for tag, (_, *child) in node.items():
            found[tag].update(child)
    return {tag: frozenset(numbers) for tag, numbers in found.items()}


def _anywhere(tag: int) -> Level:
    """A sequence's items as any IOD has them."""
    return _merged(_everywhere().get(tag, frozenset()))
