"""Identifiers that show by their form alone, without a list: Korean resident registration numbers, US social
security numbers, telephone numbers, addresses of e-mail, web and networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fedai_site.verification.findings import Severity

RRN = re.compile(r"(?<![\w.])(\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([-\s]?)([1-8])(\d{6})(?![\w.])")
SSN = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w.-])")
EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b")
PHONES = re.compile(
    r"(?<![\w.])(?:"
    r"01[016789][-. ]?\d{3,4}[-. ]?\d{4}"  # Korea, mobile
    r"|\+82[-. ]?\d{1,2}[-. ]?\d{3,4}[-. ]?\d{4}"
    r"|\(?0(?:2|[3-6]\d)\)?[-. ]\d{3,4}[-. ]\d{4}"  # Korea, land lines
    r"|(?:\+1[-. ]?)?\(?[2-9]\d{2}\)?[-. ][2-9]\d{2}[-. ]\d{4}"  # North America
    r"|\+(?:3\d|4\d|5[1-8]|6[0-6]|7|8[14-6]|9[0-58])\d?(?:[-. ]?\(?\d{1,4}\)?){2,5}"  # others
    r")(?![\w.])"
)
URL = re.compile(r"(?:https?|ftp)://|\bwww\.", re.IGNORECASE)
ADDRESS = re.compile(r"(?<![\d.])(?:10|172\.(?:1[6-9]|2\d|3[01])|192\.168)(?:\.\d{1,3}){2,3}(?![\d.])")
WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def is_rrn(digits: str) -> bool:
    """Whether the check digit of 13 digits is right (numbers given out since October 2020 have none)."""
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, digits, strict=False))
    return len(digits) == 13 and (11 - total % 11) % 10 == int(digits[12])


def detect(text: str) -> Iterator[tuple[Severity, str]]:
    """(severity, what it is) of each kind of identifier in a text."""
    for match in RRN.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if is_rrn(digits):
            yield Severity.LEAK, "a Korean resident registration number with a right check digit"
        elif match[4]:
            yield Severity.LOOK, "the form of a Korean resident registration number"
    if "@" in text and EMAIL.search(text):
        yield Severity.LEAK, "an e-mail address"
    if SSN.search(text):
        yield Severity.LEAK, "the form of a US social security number"
    if URL.search(text):
        yield Severity.LOOK, "an address in the web"
    if ADDRESS.search(text):
        yield Severity.LOOK, "the form of an address inside a network"
    if PHONES.search(text):
        yield Severity.LEAK, "a telephone number"
