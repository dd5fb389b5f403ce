"""What an object claims about its own de-identification: (0012,0062-0064), (0028,0301-0303)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fedai_site.verification.elements import Element
from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.part10 import Part10

BASIC, CLEAN_PIXELS, CLEAN_FACE = "113100", "113101", "113102"
OPTIONS = {
    "113103": "graphics",
    "113104": "structured-content",
    "113105": "descriptors",
    "113106": "full-dates",
    "113107": "modified-dates",
    "113108": "patient",
    "113109": "device",
    "113110": "uids",
    "113111": "safe-private",
    "113112": "institution",
}
"""PS3.16 CID 7050: code value -> option of Annex E."""
KNOWN_CODES = frozenset({BASIC, CLEAN_PIXELS, CLEAN_FACE, *OPTIONS})
REMOVED, METHOD, CODES = 0x00120062, 0x00120063, 0x00120064
BURNED_IN, FACE, DATES = 0x00280301, 0x00280302, 0x00280303
CODE_VALUE, SCHEME = 0x00080100, 0x00080102
IN_CODES = re.compile(r"\(0012,0064\)\[(\d+)\]")
MEDIA_CLASS, DIRECTORY = 0x00020002, b"1.2.840.10008.1.3.10"
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


@dataclass(frozen=True)
class Claims:
    """The claims of one object. `dates` is REMOVED, MODIFIED, UNMODIFIED or ''. `is_directory`: it is the
    directory of a medium (PS3.3 annex F), which has no place for claims.
    """

    removed: str
    method: str
    codes: frozenset[str]
    burned_in: str
    face: str
    dates: str
    has_pixels: bool
    is_directory: bool = False

    @property
    def options(self) -> frozenset[str]:
        """Options of Annex E by the names of the second table."""
        return frozenset(OPTIONS[code] for code in self.codes if code in OPTIONS)


def read_claims(parts: Part10) -> Claims:
    """The claims at the top level of an object."""
    return Claims(
        removed=parts.text(REMOVED),
        method=parts.text(METHOD),
        codes=frozenset(_codes(parts.elements)),
        burned_in=parts.text(BURNED_IN),
        face=parts.text(FACE),
        dates=parts.text(DATES),
        has_pixels=any(e.tag in PIXEL_TAGS and e.depth == 0 for e in parts.elements),
        is_directory=any(e.tag == MEDIA_CLASS and e.stripped() == DIRECTORY for e in parts.meta),
    )


def _codes(elements: tuple[Element, ...]) -> Iterator[str]:
    """The code values in the items of (0012,0064) that name DCM as their scheme."""
    values: dict[str, str] = {}
    schemes: dict[str, str] = {}
    for element in elements:
        if element.tag in (CODE_VALUE, SCHEME) and IN_CODES.fullmatch(element.parent):
            into = values if element.tag == CODE_VALUE else schemes
            into[element.parent] = element.stripped().decode("ascii", "replace")
    yield from (code for item, code in values.items() if schemes.get(item) == "DCM")


def check_claims(claims: Claims, file: str) -> Iterator[Finding]:
    """Missing and contradictory claims."""
    if claims.is_directory:
        return
    for place, message in (*_identity(claims), *_dates(claims), *_pixels(claims)):
        yield Finding(Severity.VIOLATION, "claims", message, file, place)
    if claims.has_pixels and claims.burned_in not in ("NO", "YES"):
        what = "nobody says that there is no text in the pixels"
        yield Finding(Severity.LOOK, "claims", what, file, "(0028,0301)")
    if claims.face == "YES":
        what = "a face may be recognised: only with the review board's decision"
        yield Finding(Severity.LOOK, "claims", what, file, "(0028,0302)")


def _identity(claims: Claims) -> Iterator[tuple[str, str]]:
    if claims.removed != "YES":
        yield "(0012,0062)", "doesn't say that the identity was removed"
    if not claims.method and not claims.codes:
        yield "(0012,0063)", "says neither a method nor its codes"
    if BASIC not in claims.codes:
        yield "(0012,0064)", "doesn't claim the Basic Profile (113100)"
    if claims.codes - KNOWN_CODES:
        yield "(0012,0064)", "holds a code that isn't one of CID 7050"


def _dates(claims: Claims) -> Iterator[tuple[str, str]]:
    says = {option for option in ("full-dates", "modified-dates") if option in claims.options}
    if len(says) > 1:
        yield "(0012,0064)", "claims full dates and modified dates at once"
    expected = {"full-dates": "UNMODIFIED", "modified-dates": "MODIFIED"}
    wanted = {expected[option] for option in says} or {"REMOVED"}
    if claims.dates not in wanted:
        yield "(0028,0303)", f"doesn't fit the codes: {' or '.join(sorted(wanted))} would"


def _pixels(claims: Claims) -> Iterator[tuple[str, str]]:
    if claims.burned_in == "YES":
        yield "(0028,0301)", "says itself that text is burned into the pixels"
    if CLEAN_PIXELS in claims.codes and claims.has_pixels and claims.burned_in != "NO":
        yield "(0028,0301)", "claims clean pixels (113101) but not NO"
    if CLEAN_FACE in claims.codes and claims.face != "NO":
        yield "(0028,0302)", "claims a removed face (113102) but not NO"
