"""Age, size, weight of patients: rare values top- and bottom-coded, small cells coarsened or suppressed.

HIPAA 164.514(b)(2)(i)(C): ages over 89 become one category. k-anonymity: Sweeney, 2002 (every combination of
quasi-identifiers that stays is shared by k patients); l-diversity: Machanavajjhala et al., 2007 (distinct
values of the sensitive attribute within each).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

OLDEST = 90  # years: this and above is one category
AGE = re.compile(r"([0-9]{3})([DWMY])")
DECIMAL = re.compile(r"\+?[0-9]{1,4}(?:\.[0-9]{0,12})?")
SIZE = (0.4, 2.0)  # m; outside of it people are rare
WEIGHT = (2.0, 150.0)  # kg
POSSIBLE = {"size": (0.2, 2.75), "weight": (0.2, 650.0)}  # outside of it the value is wrong (cm, g)


def age(value: str) -> str | None:
    """A value of AS with 90 years and more as 090Y, days and weeks as whole months (years from 24 months on).

    '' stays ''. None for what isn't an age.
    """
    text = value.strip(" \0")
    if not text:
        return ""
    match = AGE.fullmatch(text)
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    days = number * {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}[unit]
    months = number if unit == "M" else int(days / 30.4375)
    if unit != "Y" and months < 24:
        return f"{months:03}M"
    years = number if unit == "Y" else months // 12
    return f"{min(years, OLDEST):03}Y"


def size(value: str) -> str | None:
    """Patient's Size (m) to the centimetre, within 0.4 and 2 m; '' stays ''; None for what can't be one."""
    return _within(value, SIZE, POSSIBLE["size"], 2)


def weight(value: str) -> str | None:
    """Patient's Weight (kg) to 100 g, within 2 and 150 kg; '' stays ''; None for what can't be one.

    A weight beyond the bounds makes SUVs wrong by the same factor: such a patient is rare, and known by it.
    """
    return _within(value, WEIGHT, POSSIBLE["weight"], 1)


def _within(value: str, usual: tuple[float, float], possible: tuple[float, float], digits: int) -> str | None:
    text = value.strip(" \0")
    if not text:
        return ""
    if not DECIMAL.fullmatch(text) or not possible[0] <= float(text) <= possible[1]:
        return None
    return f"{round(min(max(float(text), usual[0]), usual[1]), digits):g}"


def age_band(value: str) -> str:
    """Ten years of age, as the age in their middle: 034Y and 030Y become 035Y, 011M becomes 005Y."""
    match = AGE.fullmatch(value)
    if match is None:
        return ""
    years = int(match[1]) if match[2] == "Y" else 0
    return f"{min(years // 10 * 10 + 5, OLDEST):03}Y" if years < OLDEST else f"{OLDEST:03}Y"


def size_band(value: str) -> str:
    """Ten centimetres, as the size in their middle."""
    return f"{int(float(value) * 100 + 0.5) // 10 / 10 + 0.05:.2f}" if DECIMAL.fullmatch(value) else ""


def weight_band(value: str) -> str:
    """Ten kilograms, as the weight in their middle."""
    return f"{int(float(value)) // 10 * 10 + 5}" if DECIMAL.fullmatch(value) else ""


BANDS: Mapping[str, Callable[[str], str]] = {
    "PatientAge": age_band,
    "PatientSize": size_band,
    "PatientWeight": weight_band,
}


Cell = tuple[str, ...]
"""One combination of quasi-identifiers."""


class Outcome(StrEnum):
    """What happens to the quasi-identifiers of one patient."""

    KEEP = "keep"
    COARSEN = "coarsen"  # to bands of ten
    SUPPRESS = "suppress"  # all of them are emptied


@dataclass(frozen=True, slots=True)
class Protected:
    """A patient's outcome and the quasi-identifiers as they may be released, in the order asked for."""

    outcome: Outcome
    values: tuple[str, ...]


def protect(
    rows: Sequence[Mapping[str, str]],
    quasi: Sequence[str] = ("PatientSex", "PatientAge"),
    k: int = 5,
    diversity: int = 1,
    sensitive: str = "",
    bands: Mapping[str, Callable[[str], str]] = BANDS,
) -> list[Protected]:
    """One outcome for each row (one row is one patient), so that every cell that stays is large enough.

    A cell is one combination of released quasi-identifiers. It has to hold at least `k` patients and, with a
    `sensitive` column, `diversity` distinct values of it. Cells that do are kept. The others are coarsened
    (`bands`), and where their band is still too small, the smallest kept cells of the same band join it one
    by one. Only patients whose whole band is too small are suppressed. The outcome depends on the rows, not
    on their order; an unlisted column's band is the value itself. Raises ValueError if k or the diversity is
    below 1, or diversity above 1 has no column.
    """
    if k < 1 or diversity < 1 or (diversity > 1 and not sensitive):
        raise ValueError("k and diversity are at least 1, and diversity is of some column")
    groups: dict[Cell, dict[Cell, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        cell = tuple(row.get(name, "") for name in quasi)
        band = tuple(
            bands[name](value) if name in bands else value for name, value in zip(quasi, cell, strict=True)
        )
        groups[band][cell].append(index)

    def is_large(members: Sequence[int]) -> bool:
        found = {rows[index].get(sensitive, "") for index in members}
        return len(members) >= k and len(found) >= diversity

    outcomes: dict[int, Protected] = {}
    for band, cells in groups.items():
        outcomes.update(_of_band(band, cells, is_large))
    return [outcomes[index] for index in range(len(rows))]


def _of_band(
    band: Cell, cells: Mapping[Cell, list[int]], is_large: Callable[[Sequence[int]], bool]
) -> dict[int, Protected]:
    """The outcomes of the patients of one band, by their index."""
    kept = sorted(
        (cell for cell, members in cells.items() if not any(cell) or is_large(members)),
        key=lambda cell: (any(cell), -len(cells[cell]), cell),
    )
    together = [index for cell, members in cells.items() if cell not in kept for index in members]
    while together and not is_large(together) and kept and any(kept[-1]):
        together += cells[kept.pop()]
    outcome = Outcome.COARSEN if is_large(together) else Outcome.SUPPRESS
    released = band if outcome is Outcome.COARSEN else ("",) * len(band)
    found = {index: Protected(outcome, released) for index in together}
    found.update({index: Protected(Outcome.KEEP, cell) for cell in kept for index in cells[cell]})
    return found
