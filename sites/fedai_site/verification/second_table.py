"""A second copy of DICOM PS3.15 Table E.1-1, taken from other hands than the one that the engine uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Listed:
    """What the table says of one attribute: the Basic Profile's code (X, Z, D, U or a composite), and 'K'
    or 'C' by name of an option.
    """

    code: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class SecondTable:
    """Tag as a number -> what the table says. Curves, overlays and private groups are patterns, not in it."""

    edition: str
    rows: Mapping[int, Listed]


@cache
def load_second_table() -> SecondTable:
    """The table as shipped."""
    data = json.loads(files(__package__).joinpath("second_table.json").read_text(encoding="utf-8"))
    plain = [row for row in data["rows"] if "x" not in row[0]]
    rows = {int(row[0], 16): Listed(row[1], row[2] if len(row) > 2 else {}) for row in plain}
    return SecondTable(data["editions"]["actions"], rows)
