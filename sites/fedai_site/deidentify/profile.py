"""Which of Annex E's options are chosen, and what they mean for dates: 'basic+OPTION...' or a YAML file.

DICOM PS3.15 E.2 (Basic Application Level Confidentiality Profile), E.3 (options); PS3.16 CID 7050 (codes).
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, model_validator
from pydicom.datadict import DicomDictionary

from fedai.errors import ConfigError
from fedai.yamlfile import Frozen, parse
from fedai_site.deidentify.table import load_table, standard_vr

Mode = Literal["remove", "shift", "year", "keep"]
YAML_NAMES = (".yaml", ".yml", ".json")


class Option(StrEnum):
    """Annex E's ten options that change what happens to attributes, as the command line calls them."""

    SAFE_PRIVATE = "safe-private"
    UIDS = "uids"
    DEVICE = "device"
    INSTITUTION = "institution"
    PATIENT = "patient"
    FULL_DATES = "full-dates"
    MODIFIED_DATES = "modified-dates"
    DESCRIPTORS = "descriptors"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHICS = "graphics"

    @property
    def column(self) -> str:
        """The name of its column in table_e1_1.json."""
        return "private" if self is Option.SAFE_PRIVATE else self.value.replace("-", "_")


BASIC_CODE = ("113100", "Basic Application Confidentiality Profile")
CODES: dict[Option, tuple[str, str]] = {
    Option.GRAPHICS: ("113103", "Clean Graphics Option"),
    Option.STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
    Option.DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    Option.FULL_DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Option.MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.PATIENT: ("113108", "Retain Patient Characteristics Option"),
    Option.DEVICE: ("113109", "Retain Device Identity Option"),
    Option.UIDS: ("113110", "Retain UIDs Option"),
    Option.SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    Option.INSTITUTION: ("113112", "Retain Institution Identity Option"),
}
ALSO_CALLED: dict[Option, tuple[str, ...]] = {
    Option.SAFE_PRIVATE: ("retain safe private", "private", "retain private"),
    Option.UIDS: ("retain uids", "uid", "retain uid"),
    Option.DEVICE: ("retain device identity", "device identity", "retain device", "rtn dev id"),
    Option.INSTITUTION: ("retain institution identity", "institution identity", "retain institution"),
    Option.PATIENT: ("retain patient characteristics", "patient characteristics", "retain patient"),
    Option.FULL_DATES: (
        "retain longitudinal temporal information with full dates",
        "retain longitudinal temporal information full dates",
        "retain longitudinal full dates",
        "longitudinal full dates",
        "retain full dates",
        "dates full",
    ),
    Option.MODIFIED_DATES: (
        "retain longitudinal temporal information with modified dates",
        "retain longitudinal temporal information modified dates",
        "retain longitudinal modified dates",
        "longitudinal modified dates",
        "retain modified dates",
        "dates modified",
    ),
    Option.DESCRIPTORS: ("clean descriptors", "clean desc", "desc"),
    Option.STRUCTURED_CONTENT: ("clean structured content", "clean struct cont", "structured"),
    Option.GRAPHICS: ("clean graphics", "clean graph"),
}
NOT_HERE = {
    "113100": "is the Basic Profile, which always holds",
    "113101": "(Clean Pixel Data) is no part of a profile: pixels are searched by default",
    "113102": "(Clean Recognizable Visual Features) is no part of a profile: faces go by default",
}
SUFFIXES = re.compile(r" (option|opt)$")


def _plain(word: str) -> str:
    """One spelling of a name: lower case, words apart by single spaces, without 'option' at its end."""
    return SUFFIXES.sub("", re.sub(r"[\s_.-]+", " ", word.strip().lower()))


@cache
def _spellings() -> dict[str, Option]:
    found = {_plain(option.value): option for option in Option}
    found |= {_plain(name): option for option, names in ALSO_CALLED.items() for name in names}
    found |= {_plain(meaning): option for option, (_, meaning) in CODES.items()}
    return found | {code: option for option, (code, _) in CODES.items()}


def option(word: str) -> Option:
    """The option that goes by this name, the Standard's phrase or its code. Raises ConfigError."""
    plain = _plain(word)
    if plain in NOT_HERE:
        raise ConfigError(f"{plain} {NOT_HERE[plain]}", hint="leave it out")
    found = _spellings().get(plain)
    if found is None:
        close = difflib.get_close_matches(plain, list(_spellings()), n=1, cutoff=0.5)
        known = ", ".join(Option)
        hint = f"did you mean {_spellings()[close[0]].value!r}?" if close else f"options: {known}"
        raise ConfigError(f"there is no option {word.strip()!r} of de-identification", hint=hint)
    return found


def _options(value: Any) -> Any:
    try:
        return (
            [option(str(word)) for word in value]
            if isinstance(value, list | tuple | set | frozenset)
            else value
        )
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _tags(value: Any) -> Any:
    try:
        return [tag_of(str(word)) if isinstance(word, str) else word for word in value]
    except ConfigError as error:
        raise ValueError(str(error)) from None


@cache
def _keywords() -> dict[str, int]:
    return {entry[4]: tag for tag, entry in DicomDictionary.items() if entry[4]}


def tag_of(word: str) -> int:
    """The tag of a keyword or of '(gggg,eeee)', 'ggggeeee' in hexadecimal. Raises ConfigError."""
    digits = re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?\s*([0-9A-Fa-f]{4})\)?", word.strip())
    if digits:
        return int(digits[1] + digits[2], 16)
    tag = _keywords().get(word.strip())
    if tag is None:
        close = difflib.get_close_matches(word.strip(), list(_keywords()), n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}?" if close else "give a keyword, or (gggg,eeee) in hexadecimal"
        raise ConfigError(f"the Standard has no attribute {word.strip()!r}", hint=hint)
    return tag


InOrder = PlainSerializer(sorted, return_type=list)  # so that the same profile is always written the same
Options = Annotated[frozenset[Option], BeforeValidator(_options), InOrder]
Tags = Annotated[frozenset[int], BeforeValidator(_tags), InOrder]


class Profile(Frozen):
    """The Basic Profile with options.

    `dates`: what happens to DA, DT and TM; it follows from the options, only 'year' has to be said (with
    modified-dates). `keep`: attributes that stay though the Standard's table doesn't list them and text is
    otherwise denied; `remove`: attributes that go though they would stay. Both by keyword or (gggg,eeee).
    """

    name: str = ""
    options: Options = frozenset()
    dates: Mode = "remove"
    keep: Tags = frozenset()
    remove: Tags = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        options = _options(data.get("options") or [])
        if not isinstance(options, list):
            return data
        named = "+".join(["basic", *(item.value for item in Option if item in options)])
        mode = (
            "keep"
            if Option.FULL_DATES in options
            else "shift"
            if Option.MODIFIED_DATES in options
            else "remove"
        )
        return {**data, "name": data.get("name") or named, "dates": data.get("dates") or mode}

    @model_validator(mode="after")
    def _agrees(self) -> Profile:
        if {Option.FULL_DATES, Option.MODIFIED_DATES} <= self.options:
            raise ValueError("full-dates and modified-dates contradict each other: choose one of them")
        wanted = {"shift": Option.MODIFIED_DATES, "year": Option.MODIFIED_DATES, "keep": Option.FULL_DATES}
        kept = {Option.FULL_DATES, Option.MODIFIED_DATES} & self.options
        if kept != ({wanted[self.dates]} if self.dates in wanted else set()):
            raise ValueError(f"dates: {self.dates} doesn't go with the options {sorted(self.options)}")
        if both := self.keep & self.remove:
            raise ValueError(f"keep and remove both name ({min(both):08X})")
        for tag in sorted(self.keep):
            if reason := self._why_not_kept(tag):
                raise ValueError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) can't be kept: {reason}")
        return self

    def _why_not_kept(self, tag: int) -> str:
        """Why `keep` may not name this attribute; '' if it may."""
        if load_table().row(tag) is not None:
            return "Table E.1-1 lists it; only an option of Annex E can keep it"
        if tag >> 16 & 1:
            return "it is private; see the option safe-private"
        vr = standard_vr(tag)
        if not vr:
            return "the Standard doesn't know it"
        if vr in ("DA", "DT", "TM"):
            return "dates are kept or shifted by full-dates or modified-dates"
        if vr[0] == "O" or vr in ("UN", "PN", "SQ", "UI", "AT"):
            return f"values of {vr} can't be kept by name"
        return "" if tag >> 16 >= 8 else "it belongs to the file's structure"

    def codes(self) -> list[tuple[str, str]]:
        """(code, meaning) of CID 7050 for what is really done, in the order of the codes."""
        return [BASIC_CODE, *sorted(CODES[item] for item in self.options)]


BASIC = Profile()


def load_profile(text: str) -> Profile:
    """'basic', 'basic+modified-dates+device', 'basic+modified-dates:year', or the path of a YAML file.

    Raises ConfigError for names that nobody knows and for contradictions.
    """
    if text.strip().lower().endswith(YAML_NAMES):
        return _load_file(Path(text.strip()))
    first, *rest = text.split("+")
    if _plain(first) not in ("basic", "basic profile"):
        hint = (
            f"write 'basic+{text.strip()}'"
            if _plain(first) in _spellings()
            else "for example basic+modified-dates"
        )
        raise ConfigError(f"a profile begins with 'basic', not {first.strip()!r}", hint=hint)
    dates = {"year" for word in rest if word.strip().lower().endswith((":year", "=year"))}
    words = [re.sub(r"[:=](year|shift)$", "", word.strip().lower()) for word in rest]
    try:
        return Profile.model_validate({"options": words, "dates": "year" if dates else None})
    except ValueError as error:
        raise ConfigError(_first_line(error), hint="see `fedai site deid --help`") from None


def _load_file(path: Path) -> Profile:
    try:
        return parse(path.read_bytes(), Profile, str(path))
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint="check the path") from None


def _first_line(error: ValueError) -> str:
    """What pydantic says, without its frame."""
    details: list[Any] = error.errors() if hasattr(error, "errors") else []
    message = str(details[0]["msg"]) if details else str(error)
    return message.removeprefix("Value error, ")
