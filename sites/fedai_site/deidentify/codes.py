"""Codes of public schemes: whether a value is one, and what the scheme itself says it means (PS3.16, 8)."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

SNOMED_RT = ("SRT", "SNM3", "99SDM")
PATTERNS = {
    "DCM": re.compile(r"1[0-3][0-9]{4}"),
    "SCT": re.compile(r"[1-9][0-9]{5,17}"),
    "LN": re.compile(r"[0-9]{1,5}-[0-9]"),
    "RADLEX": re.compile(r"RID[0-9]{1,6}"),
    "FMA": re.compile(r"[1-9][0-9]{2,5}"),
    **dict.fromkeys(SNOMED_RT, re.compile(r"[A-Z][0-9]?-[0-9A-F]{4,6}")),
}
UNIT = (
    r"(?:[numkMG]?(?:m|s|g|Hz|Bq|Ci|Gy|Sv|T|V|A|W|J|L|l|mol|eV|Pa)"
    r"|cm|deg|rad|min|h|d|wk|mo|a|%|1|\[hnsf'U\]|mm\[Hg\])"
)
UCUM = re.compile(rf"/?{UNIT}-?[0-9]?(?:[./]{UNIT}-?[0-9]?){{0,3}}")
VERHOEFF_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
VERHOEFF_ORDER = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def is_public(scheme: str, value: str) -> bool:
    """Whether the value is (or, for schemes with check digits, can only be) a code of a public scheme."""
    if scheme == "UCUM":
        return _meaning(scheme, value) is not None or UCUM.fullmatch(value) is not None
    pattern = PATTERNS.get(scheme)
    if pattern is None or pattern.fullmatch(value) is None:
        return pattern is None and scheme in ("MDC", "NCIt", "ICDO3") and _meaning(scheme, value) is not None
    if _meaning(scheme, value) is not None:
        return True
    return {"SCT": _has_verhoeff_digit, "LN": _has_luhn_digit}.get(scheme, bool)(value)


def meaning(scheme: str, value: str) -> str:
    """What the code means in the words of its scheme; '' if that isn't known here."""
    return _meaning(scheme, value) or ""


@cache
def _concepts() -> dict[str, dict[str, str]]:
    """Scheme -> code -> meaning: the concepts that the Standard uses, as pydicom has them. 0.3 s, once."""
    from pydicom.sr._concepts_dict import concepts

    schemes: dict[str, dict[str, str]] = {}
    for scheme, entries in concepts.items():
        codes = schemes.setdefault(scheme, {})
        for entry in entries.values():
            codes.update({code: str(details[0]) for code, details in entry.items()})
    return schemes


@cache
def _snomed_ct() -> dict[str, str]:
    """SNOMED-RT identifiers -> those of SNOMED CT."""
    from pydicom.sr._snomed_dict import mapping

    found: Any = mapping
    return dict(found["SRT"])


@lru_cache(maxsize=4096)
def _meaning(scheme: str, value: str) -> str | None:
    if scheme in SNOMED_RT:
        scheme, value = "SCT", _snomed_ct().get(value, "")
    return _concepts().get(scheme, {}).get(value)


def _has_verhoeff_digit(digits: str) -> bool:
    """SNOMED CT identifiers end in a check digit (Verhoeff 1969), so that most other numbers aren't any."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        permuted = VERHOEFF_ORDER[position % 8][int(digit)]
        check = int(VERHOEFF_PRODUCT[check][int(permuted)])
    return check == 0


def _has_luhn_digit(code: str) -> bool:
    """LOINC's check digit (mod 10)."""
    total = 0
    for position, digit in enumerate(reversed(code.replace("-", ""))):
        doubled = int(digit) * (2 if position % 2 else 1)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0
