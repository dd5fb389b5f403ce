"""What is known about the patient from the object itself, in every script, to be missed in what is kept.

Character sets: PS3.5 6.1. Names: PS3.5 6.2.1 (component groups in Latin, ideographic and phonetic writing).
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import PersonName

from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.table import standard_vr

CHARACTER_SET = 0x00080005
NUMBERS = frozenset({
    0x00080050,  # Accession Number
    0x00100020,  # Patient ID
    0x00100030,  # Patient's Birth Date
    0x00101000,  # Other Patient IDs
    0x00101050,  # Insurance Plan Identification
    0x00101090,  # Medical Record Locator
    0x00102154,  # Patient's Telephone Numbers
    0x00120040,  # Clinical Trial Subject ID
    0x00200010,  # Study ID
    0x00380010,  # Admission ID
    0x00380060,  # Service Episode ID
    0x00401001,  # Requested Procedure ID
    0x00402016,  # Placer Order Number
    0x00402017,  # Filler Order Number
})  # fmt: skip
"""Attributes beside names (PN, at every depth) whose words and numbers are looked for."""
WORD = re.compile(r"[^\W_]+")
DIGITS = re.compile(r"[0-9]{5,}")
DELIMITERS = {0x5C, 0x5E, 0x3D, 0x0D, 0x0A, 0x09, 0x0C}  # \ ^ = and control characters
TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
PACKING = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "AT": "HH",
    "US or SS": "H", "US or OW": "H", "US or SS or OW": "H",
}  # fmt: skip
MOJIBAKE = ("utf-8", "euc-kr", "shift_jis", "euc_jp", "gb18030", "big5")
MAXIMUM_ITEMS = 2000
SHORTEST = 3
ASCII_ANYWHERE = 6  # letters from which on a word is found inside others too


@dataclass(frozen=True)
class Known:
    """Words of names and numbers, folded. `anywhere` are found inside other words too."""

    words: frozenset[str]
    anywhere: tuple[str, ...] = field(default=())
    numbers: frozenset[str] = field(default=frozenset())

    def is_in(self, text: str) -> bool:
        """Whether a name or number of this patient stands in the text."""
        folded = fold(text)
        if any(word in self.words for word in WORD.findall(folded)):
            return True
        squeezed = "".join(WORD.findall(folded))
        return any(word in squeezed for word in self.anywhere)

    def is_number(self, digits: str) -> bool:
        """Whether a run of digits is one of the patient's numbers."""
        return digits in self.numbers or digits.lstrip("0") in self.numbers

    def is_in_bytes(self, value: bytes) -> bool:
        """Whether a long name or number stands in bytes that aren't text."""
        plain = value.upper()
        return any(word.isascii() and word.encode() in plain for word in self.anywhere)


def fold(text: str) -> str:
    """One form of a text for comparing: NFKC, upper case."""
    return text.upper() if text.isascii() else unicodedata.normalize("NFKC", text).upper()


def gather(dataset: Dataset) -> Known:
    """All names in the object, and the numbers of the patient."""
    words: set[str] = set()
    anywhere: set[str] = set()
    for text in _identifying(dataset):
        for value in text.split("\\"):
            for group in value.split("="):
                found = [word for word in WORD.findall(fold(group)) if _is_telling(word)]
                words.update(found)
                anywhere.update(_joined(found))
    numbers = {digits for word in words for digits in DIGITS.findall(word)}
    numbers |= {digits.lstrip("0") for digits in numbers if len(digits.lstrip("0")) >= 5}
    anywhere |= {word for word in words if len(word) >= ASCII_ANYWHERE or not word.isascii()}
    anywhere |= {wrong for word in words if not word.isascii() for wrong in _mojibake(word)}
    return Known(frozenset(words), tuple(sorted(anywhere)), frozenset(numbers))


def _is_telling(word: str) -> bool:
    return len(word) >= SHORTEST or (len(word) == 2 and not word.isascii())


def _joined(words: list[str]) -> Iterator[str]:
    """Neighbouring parts of a name without anything between them, in both orders."""
    for first, second in pairwise(words):
        yield from (first + second, second + first)


def _mojibake(word: str) -> Iterator[str]:
    """A word as it looks if its bytes are taken for Latin-1."""
    for encoding in MOJIBAKE:
        try:
            yield fold(word.encode(encoding).decode("latin-1"))
        except UnicodeError:
            continue


def _identifying(dataset: Dataset) -> Iterator[str]:
    """The texts of all names and numbers, depth first, of at most MAXIMUM_ITEMS items."""
    waiting: list[tuple[Dataset, tuple[str, ...]]] = [(dataset, ())]
    for _ in range(MAXIMUM_ITEMS):
        if not waiting:
            return
        item, inherited = waiting.pop()
        encodings = encodings_of(item, inherited)
        for tag, element in list(item.items()):
            vr = element.VR if element.VR not in (None, "UN") else standard_vr(tag)
            if vr == "PN" or tag in NUMBERS:
                yield text_of(element, encodings)
            elif vr == "SQ" and tag >> 16 not in (0x5200, 0x3006) and not tag >> 16 & 1:
                waiting += [(below, encodings) for below in _items(item, tag)]


def _items(item: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; none if it can't be parsed: the rules decide what that means."""
    try:
        return items_of(item, tag) or []
    except FAULTS:
        return []


def items_of(item: Dataset, tag: int) -> list[Dataset] | None:
    """The items of a sequence, None if it isn't one. Raises one of FAULTS if it can't be parsed."""
    element = item.get_item(tag)
    if isinstance(element, RawDataElement) and not dictionary_has_tag(tag):  # newer than pydicom's dictionary
        value = convert_raw_data_element(element._replace(VR="SQ")).value
    else:
        value = item[tag].value
    if value is None:
        return []
    return list(value) if isinstance(value, Items) else None


def encodings_of(item: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Python's names of the character sets in which an item's text is written."""
    element = item.get_item(CHARACTER_SET) if CHARACTER_SET in item else None
    if element is None:
        return inherited or ("iso8859",)
    return _encodings(text_of(element, ("ascii",)))


@lru_cache(maxsize=256)
def _encodings(names: str) -> tuple[str, ...]:
    try:
        found = tuple(convert_encodings([name.strip(" \0") for name in names.split("\\")]))
        for name in found:
            b"".decode(name)
    except LookupError:
        return ("utf-8",)
    return found or ("iso8859",)


def text_of(element: DataElement | RawDataElement, encodings: Sequence[str]) -> str:
    r"""The value as text, several ones with '\' between them, without padding at the end."""
    value: Any = element.value
    if isinstance(value, bytes):
        if value.isascii() and b"\x1b" not in value:
            return value.decode("ascii").rstrip(" \0")
        return str(decode_bytes(value, encodings, DELIMITERS)).rstrip(" \0")
    return "\\".join(_texts(value)).rstrip(" \0")


def _texts(value: Any) -> Iterator[str]:
    if value is None:
        return
    is_many = not isinstance(value, str | PersonName) and hasattr(value, "__iter__")
    yield from (str(part) for part in value) if is_many else [str(value)]


def bytes_of(element: DataElement | RawDataElement, little: bool) -> bytes:
    """The value as it is stored, or printed (UTF-8) or packed again if it has been parsed already.

    Raises TypeError or struct.error for values that don't fit their representation.
    """
    value: Any = element.value
    if isinstance(value, bytes):
        return value
    if value is None or value == "":
        return b""
    code = PACKING.get(element.VR or "")
    if code is None:
        return "\\".join(_texts(value)).encode("utf-8", "replace")
    numbers = list(value) if hasattr(value, "__iter__") else [value]
    if code == "HH":
        numbers = [half for number in numbers for half in divmod(int(number), 0x10000)]
    if code == "H" and any(number < 0 for number in numbers):
        code = "h"
    repeated = code * (len(numbers) // len(code))
    return struct.pack("<>"[not little] + repeated, *numbers)
