"""What a value must be like to be kept: that it is what its representation says, and nobody's name or number.

Each check takes a Value and says whether it may stay. The default is no.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from fedai_site.deidentify import bulk
from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.known import PACKING, TELLING, Known, text_of
from fedai_site.deidentify.spellings import SHORTEST_NUMBER
from fedai_site.deidentify.terms import is_group_word, is_technical, is_term, without_vocabulary

NUMBER_TEXT = re.compile(
    rb"(?: *+(?:[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]{1,4})?)?+ *+(?:\\|\0*+\Z))++"
)
WHOLE = re.compile(rb"(?<![0-9.])[0-9]{8,}(?![0-9])")
LONG_DIGITS = re.compile(rb"[0-9]{5,}")
YEAR, MONTH, MONTHDAY = rb"(?:19|20)[0-9]{2}", rb"(?:0[1-9]|1[0-2])", rb"(?:0[1-9]|[12][0-9]|3[01])"
DAY = re.compile(
    b"%(y)s%(m)s%(d)s|%(y)s%(d)s%(m)s|%(d)s%(m)s%(y)s|%(m)s%(d)s%(y)s"
    % {b"y": YEAR, b"m": MONTH, b"d": MONTHDAY}
)
"""A day of our times in any order."""
EXPONENT = re.compile("[eE]")
SHORTEST_DAY, MAXIMUM_PARTS, MAXIMUM_DIGITS = 7, 8, 20
PLAIN = re.compile(rb"[\x20-\x7e\t\r\n\f]*\0?")
ZONE = re.compile(rb" *[-+][0-9]{4} *\0?")
PHONE = re.compile(r"[0-9][0-9 ()+/-]{6,}[0-9]")
NO_DATES, KEPT_DATES = Dates("remove"), Dates("keep")
UID, LONGEST_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+"), 64
COUNTS = frozenset({
    0x00180070,  # Counts Accumulated
    0x00181074,  # Radionuclide Total Dose (Bq)
    0x00181152,  # Exposure
    0x00181153,  # Exposure in uAs
    0x00541310,  # Primary (Prompts) Counts Accumulated
    0x00541311,  # Secondary Counts Accumulated
})  # fmt: skip
"""Numbers that are often so large that they look like those of a patient."""
LONGEST_COUNT = 10
DEFINED: dict[int, frozenset[str]] = {
    0x00080008: frozenset({"M", "P", "R", "I", "ND", "SE", "GR", "IR", "FE", "EP"}),
    0x00080060: frozenset({
        "AR", "AS", "AU", "BI", "CR", "CT", "DG", "DX", "EC", "ED", "EM", "ES", "FA", "FS", "GM", "HC", "HD",
        "IO", "KO", "LS", "MA", "MG", "MR", "MS", "NM", "OP", "OT", "PR", "PT", "PX", "RF", "RG", "SC", "SM",
        "SR", "ST", "TG", "US", "VA", "VF", "XA", "XC",
    }),
    0x00180020: frozenset({"SE", "IR", "GR", "EP", "RM"}),
    0x00180021: frozenset({"SK", "SS", "SP", "MP", "MTC", "TRSS", "OSP"}),
    0x00180022: frozenset({"RG", "CG", "FC", "SP", "FS", "PER", "PPG", "PFF", "PFP"}),
    0x00102203: frozenset({"ALTERED", "UNALTERED"}),
    0x00180015: frozenset({"HEAD", "HAND", "FOOT", "LEG", "ARM", "KNEE", "HIP"}),
}  # fmt: skip
"""Terms that the Standard defines for an attribute (PS3.3) and that are also names of people."""
FLAGS = frozenset({"YES", "NO", "NONE", "ON", "OFF", "IN", "OUT", "UNKNOWN", "OTHER"})
REMEMBERED, SMALL = 8192, 64
MAXIMUM_COMPARED = 64  # values of a binary number that are compared one by one


@dataclass(frozen=True, slots=True)
class Value:
    """A value where it stands: as bytes (`little`: their order), its representation, its character sets."""

    raw: bytes
    vr: str
    tag: int
    little: bool
    element: DataElement | RawDataElement
    encodings: Sequence[str]
    known: Known
    item: Dataset

    def text(self) -> str:
        r"""Decoded, several values with '\' between them, without padding at the end."""
        return text_of(self.element, self.encodings)


def is_number(value: Value) -> bool:
    """IS and DS: numbers, as many as the attribute has, none like a date, a telephone or the patient's."""
    return _is_number(value.raw, value.tag, value.known)


@lru_cache(maxsize=REMEMBERED)  # most numbers of a series are the same in each of its objects
def _is_number(raw: bytes, tag: int, known: Known) -> bool:
    if NUMBER_TEXT.fullmatch(raw) is None or not _fits(tag, raw.count(b"\\") + 1):
        return False
    if any(_is_suspicious(match, tag) for match in WHOLE.findall(raw)):
        return False
    if not known.numbers and not known.days:
        return True
    if any(known.is_number(digits.decode()) for digits in LONG_DIGITS.findall(raw)):
        return False
    texts = raw.decode("ascii").rstrip(" \0").split("\\")
    return not any(_is_known(text, known) for text in texts) and not _are_known(texts, known)


def _is_known(text: str, known: Known) -> bool:
    """Whether one value is a number of the patient or a day, with or without a point or an exponent in it."""
    mantissa = EXPONENT.split(text)[0].strip(" +-")
    digits = mantissa.replace(".", "")
    if len(digits) < SHORTEST_NUMBER:
        return False
    if mantissa.isdigit():
        return known.is_whole(digits)
    return any(
        known.is_whole(form) if len(form) > SHORTEST_DAY else known.is_number(form)
        for form in (digits, digits.rstrip("0"))
        if len(form) >= SHORTEST_NUMBER
    )


def _are_known(texts: Sequence[str], known: Known) -> bool:
    """Whether several whole numbers are parts of one of the patient's (010, 1234, 5678) or of a day."""
    if not 1 < len(texts) <= MAXIMUM_PARTS:
        return False
    digits = "".join(text.strip(" +-") for text in texts)
    return digits.isdigit() and TELLING <= len(digits) <= MAXIMUM_DIGITS and known.is_whole(digits)


def _is_suspicious(digits: bytes, tag: int) -> bool:
    if tag in COUNTS:
        return len(digits) > LONGEST_COUNT
    return len(digits) > LONGEST_COUNT or digits.startswith(b"0") or DAY.fullmatch(digits) is not None


def is_term_code(value: Value) -> bool:
    """CS: words of the Standard's own vocabulary, and not a name or number of the patient."""
    return _is_code(value.raw, value.tag, value.known, False)


def is_term_only(value: Value) -> bool:
    """CS whose values the Standard enumerates: its vocabulary stays even if the patient is called so."""
    return _is_code(value.raw, value.tag, value.known, True)


@lru_cache(maxsize=REMEMBERED)
def _is_code(raw: bytes, tag: int, known: Known, is_enumerated: bool) -> bool:
    if PLAIN.fullmatch(raw) is None:
        return False
    others = _untold(raw.decode("ascii").rstrip(" \0"), tag)
    return is_term(others) and not known.is_in(without_vocabulary(others) if is_enumerated else others)


def _untold(text: str, tag: int) -> str:
    """The values but for terms defined for the attribute, which say nothing even of people called so."""
    terms = DEFINED.get(tag, frozenset()) | FLAGS
    return "\\".join(part for part in text.split("\\") if part.strip() not in terms)


def is_group(value: Value) -> bool:
    """Text that stays if it is one of the common words for what it says, and not a name of the patient."""
    text = value.text()
    return is_group_word(text) and not value.known.is_in(text)


def is_device_text(value: Value) -> bool:
    """LO and SH about the device and how images are made: its own kind of words, no date, no telephone."""
    if PLAIN.fullmatch(value.raw) is None:
        return False
    text = value.raw.decode("ascii").rstrip(" \0")
    return _is_device_text(text) and not value.known.is_in(text)


@lru_cache(maxsize=4096)
def _is_device_text(text: str) -> bool:
    if PHONE.search(text) is not None or NO_DATES.in_text(text) != text:
        return False
    return all(is_technical(part) for part in text.split("\\"))


def is_binary_number(value: Value) -> bool:
    """US, FL and the like: as many as the attribute has, no letters, no known name or number."""
    check = _is_binary if len(value.raw) <= SMALL else _is_binary.__wrapped__
    return check(value.raw, value.vr, value.tag, value.little, value.known)


@lru_cache(maxsize=REMEMBERED)
def _is_binary(raw: bytes, vr: str, tag: int, little: bool, known: Known) -> bool:
    code = PACKING[vr]
    size = struct.calcsize("<" + code)
    if len(raw) % size or not _fits(tag, len(raw) // size) or bulk.is_text(raw, vr, little):
        return False
    if len(raw) > MAXIMUM_COMPARED * size:
        return not known.is_in_bytes(raw)
    numbers = struct.unpack("<>"[not little] + code * (len(raw) // size), raw)
    return not known.is_spelt(raw) and not any(_is_known_number(each, vr, known) for each in numbers)


def _is_known_number(number: float, vr: str, known: Known) -> bool:
    """Whether a binary number is one of the patient's: itself, or its digits with a point among them."""
    if number in (0, 1) or abs(number) == float("inf") or number != number:
        return False
    if vr == "FL" and abs(number) in known.singles:
        return True
    if number == number // 1:
        digits = f"{abs(number):.0f}"
        return len(digits) >= SHORTEST_NUMBER and known.is_whole(digits)
    return _is_known(f"{abs(number):.{7 if vr == 'FL' else 15}g}", known)


def is_pointer(value: Value) -> bool:
    """AT: tags of attributes that the Standard has."""
    raw = value.raw
    if len(raw) % 4:
        return False
    halves = struct.unpack("<>"[not value.little] + "H" * (len(raw) // 2), raw)
    return all(
        group << 16 | element in DicomDictionary for group, element in zip(*[iter(halves)] * 2, strict=True)
    )


def is_samples(value: Value) -> bool:
    """Bulk numbers: as many as their item says, no words in them, no long name or number of the patient."""
    return bulk.fits(value.item, value.tag, value.raw, value.little) and not (
        bulk.holds_words(value.raw) or value.known.is_in_bytes(value.raw)
    )


def is_unmentioned(value: Value) -> bool:
    """Any text, if no name or number of the patient stands in it and it can be decoded."""
    if PLAIN.fullmatch(value.raw) is not None:
        return not value.known.is_in(value.raw.decode("ascii"))
    text = value.text()
    return "\ufffd" not in text and not value.known.is_in(text)


def is_uid(value: Value) -> bool:
    """UI: UIDs (PS3.5 9.1), and nothing of the patient in them."""
    texts = value.raw.decode("latin-1").rstrip("\0").split("\\")
    return all(
        not text or (len(text) <= LONGEST_UID and UID.fullmatch(text) and not value.known.holds_number(text))
        for text in texts
    )


def is_zone(value: Value) -> bool:
    """An offset from UTC, &ZZXX."""
    return ZONE.fullmatch(value.raw) is not None


def is_date(value: Value) -> bool:
    """DA, DT, TM: dates and times of the calendar."""
    text = value.raw.decode("latin-1")
    return value.vr in ("DA", "DT", "TM") and KEPT_DATES.value(value.vr, text) is not None


def is_plain_flag(value: Value) -> bool:
    """YES, and never NO: what an image is said to be free of, only this tool's own pass may say."""
    return value.raw.strip(b" \0") == b"YES"


def _fits(tag: int, count: int) -> bool:
    return count <= _maximum_values(tag)


@cache
def _maximum_values(tag: int) -> float:
    """The most values that an attribute may have (PS3.6), by its VM: '1', '2-3', '1-n'."""
    entry = DicomDictionary.get(tag)
    last = entry[1].split(" ")[0].split("-")[-1] if entry else "n"
    return int(last) if last.isdecimal() else float("inf")


Check = Callable[[Value], bool]
CHECKS: dict[str, Check] = {
    "a number": is_number,
    "a term": is_term_code,
    "an enumerated term": is_term_only,
    "words about a device": is_device_text,
    "binary numbers": is_binary_number,
    "a tag of the Standard": is_pointer,
    "bulk numbers": is_samples,
    "no name or number of the patient": is_unmentioned,
    "an offset from UTC": is_zone,
    "a UID": is_uid,
    "a common word": is_group,
    "a date or time": is_date,
    "YES": is_plain_flag,
}
"""Name, as explained to people -> the check."""
