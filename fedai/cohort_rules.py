"""Which images of a site a study asks for: a declarative filter, the same at each site.

What it asks about is coarse on purpose, since a site keeps no more than this of an original: whole years of
age up to 90, the year of the study, the maker's name out of a list, the body part as a code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fedai.modalities import check_modality
from fedai.yamlfile import Frozen

OLDEST_YEARS = 90  # "90 and older", as HIPAA's Safe Harbor asks (45 CFR 164.514(b)(2)(i)(C))
Maker = Literal[
    "AGFA", "CANON", "CARESTREAM", "ESAOTE", "FUJIFILM", "GE", "HITACHI", "HOLOGIC", "KODAK",
    "KONICA MINOLTA", "LG", "NEUSOFT", "PHILIPS", "SAMSUNG", "SHIMADZU", "SIEMENS", "TOSHIBA",
    "UNITED IMAGING",
]  # fmt: skip
FILTERS = ("body_part", "manufacturer", "slice_thickness_mm", "age_years", "study_years")
"""The filters that came later than studies: one that is left out doesn't change a study's hash."""
Code = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9 _]{0,15}$")]
Modality = Annotated[str, AfterValidator(check_modality)]
Years = Annotated[int, Field(ge=0, le=OLDEST_YEARS)]
Year = Annotated[int, Field(ge=1970, le=2200)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]


class AgeYears(Frozen):
    """The patient's age at the study, whole years, both ends included; 90 means 90 and older."""

    at_least: Years = 0
    at_most: Years = OLDEST_YEARS


class StudyYears(Frozen):
    """The year of StudyDate, both ends included."""

    at_least: Year = 1970
    at_most: Year = 2200


class SliceThickness(Frozen):
    """SliceThickness, mm, both ends included."""

    at_least: Millimetres = 0.001
    at_most: Millimetres = 1000


class CohortRules(Frozen):
    """Which images of a site take part. What is left out asks for nothing; an image of which it isn't known
    whether it is what is asked for doesn't take part.
    """

    modality: Annotated[tuple[Modality, ...], Field(max_length=100)] = ()
    body_part: Annotated[tuple[Code, ...], Field(max_length=100)] = ()
    manufacturer: Annotated[tuple[Maker, ...], Field(max_length=100)] = ()
    slice_thickness_mm: SliceThickness | None = None
    age_years: AgeYears | None = None
    study_years: StudyYears | None = None
    minimum_patients: Annotated[int, Field(ge=1, le=1_000_000)] = 10

    @property
    def words(self) -> str:
        """What is asked for, for a reader: `CT, chest, by GE or SIEMENS, aged 18 and more`."""
        said = [
            " or ".join(self.modality) or "any modality",
            " or ".join(part.lower() for part in self.body_part),
            f"by {' or '.join(self.manufacturer)}" if self.manufacturer else "",
            _span("slices of {} mm", self.slice_thickness_mm, SliceThickness()),
            _span("aged {}", self.age_years, AgeYears()),
            _span("studies of {}", self.study_years, StudyYears()),
        ]
        return ", ".join(filter(None, said))

    @staticmethod
    def cross_checks(data: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
        """Ends that leave nothing between them: (place, what is wrong)."""
        found: list[tuple[tuple[str, ...], str]] = []
        for name in FILTERS:
            span = data.get(name)
            least, most = (span.get("at_least"), span.get("at_most")) if isinstance(span, dict) else (0, 0)
            if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
                found.append(((name, "at_least"), f"nothing is at least {least:g} and at most {most:g}"))
        return found


Span = SliceThickness | AgeYears | StudyYears


def _span(form: str, span: Span | None, whole: Span) -> str:
    if span is None or span == whole:
        return "" if span is None else form.format("any, if known")
    if span.at_most == whole.at_most:
        return form.format(f"{span.at_least:g} and more")
    if span.at_least == whole.at_least:
        return form.format(f"up to {span.at_most:g}")
    return form.format(f"{span.at_least:g} to {span.at_most:g}")
