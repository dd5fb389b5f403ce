"""What is known about the patient from the object itself, in every script, to be missed in what is kept.

Character sets: PS3.5 6.1. Names: PS3.5 6.2.1 (component groups in Latin, ideographic and phonetic writing).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import PersonName

from fedai_site.deidentify import spellings
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.spellings import DIGITS, LETTERS, SHORTEST_NUMBER, WORD, days, fold
from fedai_site.deidentify.table import standard_vr
from fedai_site.deidentify.terms import vocabulary

CHARACTER_SET = 0x00080005
BIRTH_DATE = 0x00100030
NUMBERS = frozenset({
    0x00080050,  # Accession Number
    0x00100020,  # Patient ID
    BIRTH_DATE,
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
ADDRESSES = frozenset({0x00101040, 0x00102155})  # Patient's Address, Patient's Telecom Information
ADDRESS, BORN = "address", "birth date"
DELIMITERS = {0x5C, 0x5E, 0x3D, 0x0D, 0x0A, 0x09, 0x0C}  # \ ^ = and control characters
TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
PACKING = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "AT": "HH",
    "US or SS": "H", "US or OW": "H", "US or SS or OW": "H",
}  # fmt: skip
MAXIMUM_ITEMS = 2000
ASCII_ANYWHERE = 6  # letters from which on a word is found inside others too
SHORTEST = 3  # letters of two parts of a name that are found inside other words if there are more
TELLING = 7  # digits that no two numbers end in by chance
LONGEST_ROW = 12
LONGEST_SINGLE = 30


@dataclass(frozen=True, eq=False)
class Known:
    """Words of names and numbers, folded. `anywhere` are found inside other words too.

    `numbers` are the digits of identifiers, `days` the object's days in every order.
    """

    words: frozenset[str]
    anywhere: tuple[str, ...] = field(default=())
    numbers: frozenset[str] = field(default=frozenset())
    days: frozenset[str] = field(default=frozenset())
    tails: frozenset[str] = field(default=frozenset())
    long: tuple[str, ...] = field(default=())

    def is_in(self, text: str) -> bool:
        """Whether a name, number or day of this patient stands in the text, whatever separates its parts."""
        return _is_in(self, text)

    def is_number(self, digits: str) -> bool:
        """Whether digits are one of the patient's numbers: the same, or one ends in or holds the other."""
        bare = digits.lstrip("0")
        if digits in self.numbers or bare in self.numbers:
            return True
        if len(bare) < TELLING:
            return False
        return bare[-TELLING:] in self.tails or (bool(self.long) and _is_part(bare, self.long))

    def is_whole(self, digits: str) -> bool:
        """Whether a whole number is one of the patient's or a day of the object."""
        return digits in self.days or digits.lstrip("0") in self.days or self.is_number(digits)

    def holds_number(self, text: str) -> bool:
        """Whether runs of digits in the text, one or several in a row, are one of the patient's numbers."""
        return any(
            len(digits) >= SHORTEST_NUMBER and self.is_number(digits)
            for digits in _neighbours(DIGITS.findall(text))
        )

    def is_in_bytes(self, value: bytes) -> bool:
        """Whether a long name or number stands in bytes that aren't text."""
        plain = value.upper()
        return any(word.isascii() and word.encode() in plain for word in self.anywhere)

    def is_spelt(self, value: bytes) -> bool:
        """Whether a name or number of three signs and more stands in few bytes that aren't text."""
        if len(value) < SHORTEST or not value.strip(b"\0"):
            return False
        plain = value.upper()
        both = (plain, plain.replace(b"\0", b""))
        return any(word in form for form in both for word in self._spelt)

    @cached_property
    def _spelt(self) -> tuple[bytes, ...]:
        words = {*self.words, *self.anywhere}
        return tuple(word.encode() for word in words if len(word) > 2 and word.isascii())

    @cached_property
    def singles(self) -> frozenset[float]:
        """The numbers of the patient as they are stored in four bytes (FL)."""
        exact = (float(digits) for digits in self.numbers | self.days if len(digits) <= LONGEST_SINGLE)
        return frozenset(struct.unpack("<f", struct.pack("<f", number))[0] for number in exact)


def _is_part(digits: str, long: tuple[str, ...]) -> bool:
    return any(number in digits or digits in number for number in long)


@lru_cache(maxsize=8192)
def _is_in(known: Known, text: str) -> bool:
    folded = fold(text)
    found = WORD.findall(folded)
    if not known.words.isdisjoint(found):
        return True
    squeezed = "".join(found)
    if any(word in squeezed for word in known.anywhere):
        return True
    letters = LETTERS.findall(folded)
    if any(len(word) > 2 and word in known.words for row in (found, letters) for word in _neighbours(row)):
        return True
    return any(_is_date_or_number(known, digits) for digits in _neighbours(DIGITS.findall(folded)))


def _is_date_or_number(known: Known, digits: str) -> bool:
    return len(digits) >= SHORTEST_NUMBER and (digits in known.days or known.is_number(digits))


def _neighbours(words: list[str]) -> Iterator[str]:
    """Each word, and each row of words without anything between them."""
    for start in range(len(words)):
        row = ""
        for word in words[start : start + LONGEST_ROW]:
            row += word
            yield row


def gather(dataset: Dataset) -> Known:
    """All names and days in the object, and the numbers of the patient."""
    return _known(frozenset(_identifying(dataset)))


@lru_cache(maxsize=256)  # the objects of a series say the same
def _known(texts: frozenset[tuple[str, str]]) -> Known:
    words: set[str] = set()
    anywhere: set[str] = set()
    numbers: set[str] = set()
    dates: set[str] = set()
    for kind, text in texts:
        for value in text.split("\\"):
            if kind == "PN":
                _add_name(value, words, anywhere)
            elif kind == "DA":
                dates |= days(value)
            else:
                _add_number(kind, value, words, anywhere, numbers)
    numbers |= {digits for word in words for digits in spellings.numbers(word)}
    numbers |= {digits[::-1] for digits in numbers if len(digits) > SHORTEST_NUMBER}
    long = tuple(sorted(digits for digits in numbers if len(digits) > TELLING))
    anywhere |= {word for word in words if len(word) >= ASCII_ANYWHERE or not word.isascii()}
    return Known(
        words=frozenset(words),
        anywhere=tuple(sorted(anywhere)),
        numbers=frozenset(numbers),
        days=frozenset(dates),
        tails=frozenset(digits for digits in numbers if len(digits) == TELLING),
        long=long,
    )


def _add_name(value: str, words: set[str], anywhere: set[str]) -> None:
    for group in value.split("="):
        found = spellings.words_of_name(group)
        others = set(spellings.otherwise(group))
        words.update(found, others, spellings.words_of_number(group))
        anywhere.update(word for word in spellings.joined(found) if len(word) > SHORTEST)
        anywhere.update(word for word in others if not word.isascii() or len(word) >= ASCII_ANYWHERE)


def _add_number(kind: str, value: str, words: set[str], anywhere: set[str], numbers: set[str]) -> None:
    found = spellings.words_of_number(value)
    if kind == ADDRESS:
        words.update(word for word in found if word not in vocabulary())
        numbers.update(digits for digits in spellings.numbers(value) if len(digits) >= TELLING)
        return
    words.update(found, spellings.otherwise(value))
    whole = "".join(WORD.findall(fold(value)))
    anywhere.update(word for word in (*_pairs(found), whole) if len(word) >= ASCII_ANYWHERE)
    numbers |= spellings.numbers(value)
    if kind == BORN:
        anywhere |= spellings.days_in_words(value)
        words.update(spellings.year(value))
        numbers |= days(value)


def _pairs(words: list[str]) -> Iterator[str]:
    """Neighbouring parts without anything between them, in both orders."""
    for first, second in pairwise(words):
        yield from (first + second, second + first)


def _identifying(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """(kind, text) of all names, numbers and days, depth first, of at most MAXIMUM_ITEMS items."""
    waiting: list[tuple[Dataset, tuple[str, ...]]] = [(dataset, ())]
    for _ in range(MAXIMUM_ITEMS):
        if not waiting:
            return
        item, inherited = waiting.pop()
        encodings = encodings_of(item, inherited)
        for tag, element in list(item.items()):
            vr = element.VR if element.VR not in (None, "UN") else standard_vr(tag)
            if vr == "PN" or tag in NUMBERS or tag in ADDRESSES:
                yield _kind(tag, vr), text_of(element, encodings)
            if vr in ("DA", "DT"):
                yield "DA", text_of(element, encodings)
            elif vr == "SQ" and tag >> 16 not in (0x5200, 0x3006) and not tag >> 16 & 1:
                waiting += [(below, encodings) for below in _items(item, tag)]


def _kind(tag: int, vr: str | None) -> str:
    if vr == "PN":
        return vr
    return ADDRESS if tag in ADDRESSES else BORN if tag == BIRTH_DATE else "number"


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
