"""Re-checks each attribute of a written object against Table E.1-1 (second copy) and against what the object
claims; what the table doesn't list is judged by its value representation.

The input isn't known here: what is judged is whether a value could be one of the input's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import iter_unpack

from fedai_site.verification.claims import CODE_VALUE, Claims
from fedai_site.verification.dummies import is_dummy, is_replaced
from fedai_site.verification.elements import Element, standard_vr
from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.part10 import Part10
from fedai_site.verification.second_table import Listed, load_second_table
from fedai_site.verification.technical import TECHNICAL, is_plain, is_snomed

PATIENT_AGE = 0x00101010
OWN_MARKS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280301, 0x00280302, 0x00280303})
BULK = frozenset(
    {
        0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222, 0x00281223, 0x00281224,
        0x00283006,
        0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010, 0x00660023, 0x00660024,
        0x00660025,
        0x00660026, 0x00660027, 0x00660028, 0x00660029, 0x00660040, 0x00660041, 0x00660042, 0x0066002F,
        0x00660016,
        0x00189810, 0x00280120, 0x00281408, 0x00620026, 0x54001010, 0x5400100A, 0x54000110, 0x54000112,
    }
)  # fmt: skip
"""Attributes whose bytes are pixels, lookup tables or meshes."""
META = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013})
CODES = re.compile(r"[A-Z0-9_ ]{0,16}")
NEARLY_CODES = re.compile(r"[A-Za-z0-9_ ./+-]{0,16}")
NUMBERS = re.compile(r"[-+0-9eE. ]{0,16}")
AGE = re.compile(r"(\d{3})([DWMY])")
REAL_DATES = {
    "DA": re.compile(r"\d{4}(?:\d{2}(?:\d{2})?)?|\d{4}\.\d{2}\.\d{2}"),
    "TM": re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?|\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?"),
    "DT": re.compile(r"\d{4,14}(?:\.\d{1,6})?(?:[+-]\d{4})?"),
}
CODED = frozenset({0x00080100, 0x00080102, 0x00080104})
NUMERIC = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
SEQUENCE_DUMMY = frozenset({"D", "X/D", "X/Z/D", "Z/D"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one attribute."""

    severity: Severity
    check: str
    message: str


def violation(message: str, check: str = "table") -> Fault:
    return Fault(Severity.VIOLATION, check, message)


def look(message: str, check: str = "unlisted") -> Fault:
    return Fault(Severity.LOOK, check, message)


def check_attributes(parts: Part10, claims: Claims, file: str) -> Iterator[Finding]:
    """All findings in the attributes of one object, at every depth, and in its file meta."""
    for element in parts.meta:
        if (fault := _meta(element, parts)) is not None:
            yield Finding(fault.severity, fault.check, fault.message, file, element.place)
    emptied: tuple[str, ...] = ()
    for element in parts.elements:
        fault = judge(element, claims)
        if emptied and element.parent.startswith(emptied):
            fault = _in_dummy(element, fault, claims)
        if fault is not None:
            yield Finding(fault.severity, fault.check, fault.message, file, element.place)
        if element.vr == "SQ" and _must_be_dummy(element, claims):
            emptied = (*emptied, f"{element.place}[")


def _in_dummy(element: Element, fault: Fault | None, claims: Claims) -> Fault | None:
    """The fault of an attribute inside of a sequence that has to be a dummy; codes and terms may give it
    a form.
    """
    is_bad = fault is not None and fault.severity is not Severity.LOOK
    if is_bad or is_dummy(element) or element.vr == "CS" or element.tag in CODED:
        return fault
    listed = load_second_table().rows.get(element.tag)
    allowed = _allowed(listed, claims) if listed else set()
    dates = element.vr in REAL_DATES and claims.dates in ("MODIFIED", "UNMODIFIED")
    if allowed or dates or element.tag in BULK or element.vr in NUMERIC or element.vr == "UI":
        return look("is kept in a sequence that has to be a dummy", "table")
    return violation("stands in a sequence that has to be a dummy")


def _must_be_dummy(element: Element, claims: Claims) -> bool:
    listed = load_second_table().rows.get(element.tag)
    return listed is not None and listed.code in SEQUENCE_DUMMY and not _allowed(listed, claims)


def _meta(element: Element, parts: Part10) -> Fault | None:
    if element.tag not in META:
        return violation("doesn't belong into the file meta of a clean file", "file structure")
    twin = {0x00020002: 0x00080016, 0x00020003: 0x00080018}.get(element.tag)
    stated = parts.text(twin) if twin and not parts.broken else ""
    if stated and element.stripped().decode("latin-1") != stated:
        return violation("isn't that of the data set", "file structure")
    if element.tag == 0x00020013 and not re.fullmatch(rb"[A-Z][A-Z0-9_.]{0,15}", element.stripped()):
        return look("isn't the plain name of an implementation", "file structure")
    return None


def judge(element: Element, claims: Claims) -> Fault | None:
    """What is wrong with an attribute by itself; None if nothing is."""
    for rule in (_structure, _private, _graphics):
        fault, decided = rule(element, claims)
        if decided:
            return fault
    if element.tag in OWN_MARKS:
        return None
    listed = load_second_table().rows.get(element.tag)
    if listed is not None:
        return _listed(element, listed, claims)
    return _unlisted(element, claims)


Decision = tuple[Fault | None, bool]


def _structure(element: Element, claims: Claims) -> Decision:
    if element.tag & 0xFFFF == 0:
        return look("a group length, retired", "file structure"), True
    if element.group < 8 and not (element.group == DIRECTORY_GROUP and claims.is_directory):
        return violation("a group that has no place in a data set", "file structure"), True
    return None, False


def _private(element: Element, claims: Claims) -> Decision:
    if not element.group & 1:
        return None, False
    if "safe-private" not in claims.options:
        return violation("a private attribute, and no claim to keep safe ones", "private"), True
    if element.group < 9 or element.tag & 0xFFFF < 0x10:
        return violation("a private attribute where none may be", "private"), True
    if element.vr == "PN" and not is_dummy(element):
        return violation("a person's name in a private attribute", "private"), True
    if element.tag & 0xFFFF < 0x100:
        return None, True
    return look("a private attribute was kept", "private"), True


def _graphics(element: Element, claims: Claims) -> Decision:
    if element.tag >> 24 == 0x50:
        return violation("a curve", "graphics"), True
    if element.tag >> 24 != 0x60 or element.group & 1:
        return None, False
    if "graphics" not in claims.options:
        return violation("an overlay, and no claim to have cleaned graphics", "graphics"), True
    return look("an overlay was kept", "graphics"), True


def _allowed(listed: Listed, claims: Claims) -> set[str]:
    """'K' and 'C' as far as the claimed options say so."""
    return {listed.options[option] for option in claims.options if option in listed.options}


def _listed(element: Element, listed: Listed, claims: Claims) -> Fault | None:
    dates = {"full-dates", "modified-dates"} & claims.options & set(listed.options)
    if dates and element.vr in REAL_DATES:
        return _date(element, claims)
    if _allowed(listed, claims):
        return _age(element) if element.tag == PATIENT_AGE else None
    if claims.is_directory and element.vr != "SQ" and not element.stripped():
        return None  # its records hold what their kind must have, as empty attributes
    return _basic(element, listed.code)


def _basic(element: Element, code: str) -> Fault | None:
    """The Basic Profile's own column."""
    if code == "X":
        empty = element.vr != "SQ" and not element.stripped()
        return violation(f"has to be removed{' (it is empty)' if empty else ''}")
    if code == "U" or element.vr == "UI":
        return None if is_replaced(element) else violation("a UID that isn't replaced")
    if element.vr == "SQ" or is_dummy(element):
        return None
    return violation(f"has to be {'empty or ' if 'Z' in code else ''}a dummy ({code})")


def _unlisted(element: Element, claims: Claims) -> Fault | None:
    if not standard_vr(element.tag):
        return violation("an attribute that the Standard doesn't know", "unlisted")
    rule = BY_VR.get(element.vr)
    if rule is not None:
        return rule(element, claims)
    return (
        None
        if element.vr in ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "SQ")
        else _bytes(element)
    )


def _name(element: Element, _: Claims) -> Fault | None:
    return None if is_dummy(element) else violation("a person's name", "unlisted")


def _date(element: Element, claims: Claims) -> Fault | None:
    """A date, time or date-time against (0028,0303)."""
    if is_dummy(element):
        return None
    if claims.dates not in ("MODIFIED", "UNMODIFIED"):
        return violation("a date or time, and the claim that they were removed", "dates")
    pattern = REAL_DATES[element.vr]
    parts = element.stripped().decode("latin-1").split("\\")
    if all(not part.strip() or pattern.fullmatch(part.strip()) for part in parts):
        return None
    return violation("a date or time that can't have been read, so not have been shifted", "dates")


def _age(element: Element, _: Claims | None = None) -> Fault | None:
    """Ages over 89 have to be put together (45 CFR 164.514(b)(2)(i)(C))."""
    match = AGE.fullmatch(element.stripped().decode("latin-1"))
    if not element.stripped():
        return None
    if match is None:
        return violation("an age that isn't one", "ages")
    if match[2] == "Y" and int(match[1]) > 90:
        return violation("an age above 90 years", "ages")
    return None


def _uid(element: Element, claims: Claims) -> Fault | None:
    kept = "uids" in claims.options
    return None if kept or is_replaced(element) else violation("a UID that isn't replaced", "unlisted")


def _text(element: Element, _: Claims) -> Fault | None:
    raw = element.stripped()
    if is_dummy(element) or (element.tag in TECHNICAL and is_plain(raw)):
        return None
    if element.tag == CODE_VALUE and is_snomed(raw):
        return None
    return look("text in an attribute that the table doesn't list")


def _code_string(element: Element, _: Claims) -> Fault | None:
    text = element.stripped().decode("latin-1")
    odd = [part for part in text.split("\\") if not CODES.fullmatch(part.strip(" \0"))]
    if odd and all(NEARLY_CODES.fullmatch(part.strip(" \0")) for part in odd):
        return look("a code string that isn't quite one")
    return violation("a code string that isn't one", "unlisted") if odd else None


def _number(element: Element, _: Claims) -> Fault | None:
    text = element.stripped().decode("latin-1")
    good = all(NUMBERS.fullmatch(part.strip(" \0")) for part in text.split("\\"))
    return None if good else violation("a number that isn't one", "unlisted")


DIRECTORY_GROUP = 4
OFFSETS = frozenset({0x7FE00001, 0x7FE00002})
MOST_OFFSET = 1 << 40


def _offsets(element: Element) -> Fault | None:
    """Numbers of 64 bits, none larger than a file can be; anything else isn't an extended offset table."""
    order = "<" if element.little else ">"
    raw = bytes(element.value)
    is_table = len(raw) % 8 == 0 and all(one < MOST_OFFSET for (one,) in iter_unpack(f"{order}Q", raw))
    return None if is_table else violation("an offset table that is none", "unlisted")


def _bytes(element: Element) -> Fault | None:
    if element.tag in OFFSETS and element.depth == 0:
        return _offsets(element)
    if element.tag in BULK and element.depth == 0:
        return None
    if not element.stripped() or (element.tag in BULK and element.tag >> 16 != 0x7FE0):
        return None
    if element.tag >> 16 == 0x7FE0:
        return violation("pixels inside a sequence: an icon or the like", "unlisted")
    return look("bytes that only a program for them can read")


BY_VR: dict[str, Callable[[Element, Claims], Fault | None]] = {
    "PN": _name,
    "DA": _date,
    "DT": _date,
    "TM": _date,
    "AS": _age,
    "UI": _uid,
    "CS": _code_string,
    "DS": _number,
    "IS": _number,
    **dict.fromkeys(("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"), _text),
}
"""How the value of an attribute that the table doesn't list is judged, by its value representation as
written.
"""
