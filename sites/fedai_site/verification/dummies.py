"""Whether a value is a stand-in: empty, a fixed dummy, or a pseudonym. Judged from the value alone."""

from __future__ import annotations

import re

from fedai_site.verification.elements import TEXT, Element

WORDS = frozenset(
    {
        "ANONYMIZED", "ANONYMISED", "ANONYMOUS", "ANON", "DEIDENTIFIED", "DE-IDENTIFIED", "REMOVED",
        "REDACTED",
        "DUMMY", "NONE", "UNKNOWN", "NO VALUE", "N/A", "NA", "X", "XXX", "0", "PSEUDONYMIZED",
        "URN:ANONYMIZED",
        "NO NAME", "TEXT REMOVED", "VALUE REMOVED", "NOT AVAILABLE",
    }
)  # fmt: skip
PSEUDONYM = re.compile(
    r"p[a-z2-7]{26}|P[A-Z2-7]{26}|(?=[^\s]*\d)(?:[0-9a-z]{13,64}|[0-9A-Z]{13,64})|[A-Z2-7]{16}"
)
DUMMY_DATE = re.compile(r"(?:0001|1[0-8]\d\d)(?:\d{4})?|1900(?:01(?:01)?)?")
DUMMY_TIME = re.compile(r"0{2,6}(?:\.0{1,6})?")
DUMMY_DATETIME = re.compile(rf"(?:{DUMMY_DATE.pattern})(?:0{{2,6}}(?:\.0{{1,6}})?)?(?:[+-]0000)?")
ZERO = re.compile(r"[-+]?0*(?:\.0*)?(?:[eE][-+]?\d+)?|1")
DATES = {"DA": DUMMY_DATE, "TM": DUMMY_TIME, "DT": DUMMY_DATETIME, "AS": re.compile(r"000[DWMY]")}
REPLACED_UID = re.compile(r"2\.25\.(?:0|[1-9]\d{0,38})")
WELL_KNOWN_UID = re.compile(r"1\.2\.840\.10008\.[0-9.]{1,48}")
LONGEST_DUMMY_BYTES = 64


def is_dummy(element: Element) -> bool:
    """Whether the value is empty or can be nothing but a stand-in."""
    if element.vr == "SQ" or not element.stripped():
        return True
    if element.vr == "UI":
        return is_replaced(element)
    if element.vr in TEXT or element.vr in DATES or element.vr in ("IS", "DS"):
        text = element.stripped().decode("latin-1")
        return all(_is_dummy_text(element.vr, part.strip(" \0")) for part in text.split("\\"))
    return _are_dummy_bytes(element)


def _is_dummy_text(vr: str, text: str) -> bool:
    if vr in DATES:
        return not text or DATES[vr].fullmatch(text) is not None
    if vr in ("IS", "DS"):
        return ZERO.fullmatch(text) is not None
    return not text or text.upper() in WORDS or (vr != "CS" and PSEUDONYM.fullmatch(text) is not None)


def _are_dummy_bytes(element: Element) -> bool:
    """Binary values are dummies if all of their bytes are zero (which stripping leaves empty) or they
    spell one.
    """
    raw = element.stripped()
    return len(raw) <= LONGEST_DUMMY_BYTES and raw.decode("latin-1").upper() in WORDS


def is_replaced(element: Element) -> bool:
    """Whether each UID is a new one under 2.25 or one that the Standard itself defines."""
    for part in element.stripped().decode("latin-1").split("\\"):
        uid = part.strip(" \0")
        if uid and not (REPLACED_UID.fullmatch(uid) or WELL_KNOWN_UID.fullmatch(uid)):
            return False
    return True
