"""What a cohort can be chosen by and an image known again by: read off an original at intake, and coarsened.

Nothing here names anybody: a body part and a maker in the Standard's and makers' own words, years of age up
to 90, the sex as it was entered, the year of the study (45 CFR 164.514(b)(2)(i)), spacings, a keyed hash of
the pixels, their look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fedai.cohort_rules import OLDEST_YEARS, Maker
from fedai.subgroups import SEXES
from fedai_site.deidentify.terms import vocabulary

VERSION = 3  # of what is read: another one lets `add-data` read originals again
CONSTANT = "-"
SIDE = 16  # of the grid that an image is made to, to see how it looks
WORDS = {
    "GE": r"\bGE\b|\bGEMS\b|GENERAL ELECTRIC",
    "FUJIFILM": "FUJI",
    "HOLOGIC": "HOLOGIC|LORAD",
    "KONICA MINOLTA": "KONICA|MINOLTA",
    "LG": r"\bLG\b",
    "SAMSUNG": "SAMSUNG|MEDISON",
    "UNITED IMAGING": r"UNITED.IMAGING|\bUIH\b",
}
MAKERS = {name: re.compile(WORDS.get(name, rf"\b{name}")) for name in get_args(Maker)}
AGE = re.compile(r"([0-9]{3})([YMWD])")
PER_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}
DATE = re.compile(r"(19[0-9]{2}|20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


@dataclass(frozen=True)
class Traits:
    """Of one image; '' or None is not known. `image`: a keyed hash of the stored values. `looks`: whether
    each cell of a grid is brighter than the one left of it, 256 bits as hex (difference hash, Krawetz 2013).
    An image of one value is CONSTANT, and has no hash. `intensity`: the median value, in HU where the object
    says how.
    """

    body_part: str = ""
    manufacturer: str = ""
    slice_thickness_mm: float | None = None
    spacing_mm: float | None = None
    age_years: int | None = None
    study_year: int | None = None
    image: str = ""
    looks: str = ""
    sex: str = ""
    longer_side_px: int | None = None
    intensity: float | None = None

    def told(self) -> dict[str, str]:
        """As text, for the private state."""
        return {name: "" if value is None else str(value) for name, value in vars(self).items()}


UNKNOWN = Traits()


def traits_of(facts: Mapping[str, str]) -> Traits:
    """What `told` gave; what an earlier release didn't keep is not known."""
    known: dict[str, Any] = {one.name: facts.get(one.name, "") for one in fields(Traits)}
    for name in ("slice_thickness_mm", "spacing_mm", "intensity"):
        known[name] = float(known[name]) if known[name] else None
    for name in ("age_years", "study_year", "longer_side_px"):
        known[name] = int(known[name]) if known[name] else None
    return Traits(**known)


def read_traits(
    attribute: Callable[[str], str],
    measures: Callable[[str], str],
    image: str,
    looks: str,
    longer_side_px: int,
    intensity: float,
) -> Traits:
    """`attribute`, `measures`: an original's attribute, one of its pixel measures, as text, '' if missing."""
    date = next((found for name in DATES if (found := DATE.fullmatch(attribute(name).strip()))), None)
    return Traits(
        body_part=_body_part(attribute("BodyPartExamined")),
        manufacturer=_maker(attribute("Manufacturer")),
        slice_thickness_mm=_length(measures("SliceThickness")),
        spacing_mm=_length(measures("PixelSpacing")) or _length(attribute("ImagerPixelSpacing")),
        age_years=_age(attribute("PatientAge"), attribute("PatientBirthDate"), date),
        study_year=int(date[1]) if date else None,
        image=image,
        looks=looks,
        sex=sex if (sex := attribute("PatientSex").strip().upper()) in SEXES else "",
        longer_side_px=longer_side_px,
        intensity=float(f"{intensity:.3g}"),
    )


def _body_part(text: str) -> str:
    found = text.strip().upper()
    words = re.split("[ _]+", found)
    return (
        found
        if len(found) <= 16 and vocabulary().issuperset(words) and not set("0123456789") & set(found)
        else ""
    )


def _maker(text: str) -> str:
    return next((name for name, word in MAKERS.items() if word.search(text.upper())), "")


def _length(text: str) -> float | None:
    """The first of one or two lengths, mm."""
    try:
        found = float(re.split(r"[\\,]", text.strip("[] "))[0])
    except ValueError:
        return None
    return float(f"{found:.3g}") if 0 < found < 1000 else None


def _age(age: str, birth: str, study: re.Match[str] | None) -> int | None:
    """Whole years up to 90: PatientAge (PS3.5 AS), else from the birth date."""
    if found := AGE.fullmatch(age.strip()):
        return min(int(found[1]) // PER_YEAR[found[2]], OLDEST_YEARS)
    born = DATE.fullmatch(birth.strip())
    if not born or not study:
        return None
    years = int(study[1]) - int(born[1]) - ((study[2], study[3]) < (born[2], born[3]))
    return min(years, OLDEST_YEARS) if years >= 0 else None


def digest(stored: NDArray[Any]) -> str:
    """Of a frame's stored values, [rows, columns] or with [samples], whatever their transfer syntax."""
    values = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))
    return sha256(f"{values.shape} {values.dtype.itemsize} ".encode() + values.tobytes()).hexdigest()


def look_of(image: NDArray[np.float32]) -> str:
    """An image's `looks`, float32 [rows, columns]."""
    if np.ptp(image) == 0:
        return CONSTANT
    rows, columns = (
        np.arange(cells) * size // cells for size, cells in zip(image.shape, (SIDE, SIDE + 1), strict=True)
    )
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=0), columns, axis=1)
    means = sums / np.outer(_widths(rows, image.shape[0]), _widths(columns, image.shape[1]))
    return np.packbits(means[:, 1:] > means[:, :-1]).tobytes().hex()


def _widths(starts: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Of the cells that `np.add.reduceat` sums: one without a width is one element there."""
    return np.maximum(np.diff(np.append(starts, end)), 1)
