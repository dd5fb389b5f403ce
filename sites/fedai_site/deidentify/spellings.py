"""Other ways to write a name, a number or a day, so that it is found again however it is written.

Names: without case, accents and separators, in any order, in Latin letters for umlauts, as bytes taken for
another character set. Numbers: digits alone. Days: year, month and day in every usual order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations

WORD = re.compile(r"[^\W_]+")
DIGITS = re.compile(r"[0-9]+")
LETTERS = re.compile(r"[^\W\d_]+")
SPELT = str.maketrans({"Ø": "O", "Ł": "L", "Đ": "D", "Æ": "AE", "Œ": "OE", "Þ": "TH", "ı": "I"})
UMLAUTS = str.maketrans({"Ä": "AE", "Ö": "OE", "Ü": "UE", "Å": "AA", "Ø": "OE"})
MOJIBAKE = ("utf-8", "euc-kr", "shift_jis", "euc_jp", "gb18030", "big5")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
TITLES = frozenset({"DR", "MR", "MS", "MD", "JR", "SR", "II", "IV", "RN", "BS"})
PARTS_OF_A_NAME = 3  # family, given, middle: what follows are prefix and suffix (PS3.5 6.2.1)
SHORTEST_NUMBER = 5
MOST_JOINED = 6  # parts of a name that are tried in every order


def fold(text: str) -> str:
    """One form of a text for comparing: NFKC, upper case, without accents."""
    if text.isascii():
        return text.upper()
    apart = unicodedata.normalize("NFD", _upper(text).translate(SPELT))
    plain = "".join(sign for sign in apart if not unicodedata.combining(sign))
    return unicodedata.normalize("NFC", plain)


def _upper(text: str) -> str:
    return unicodedata.normalize("NFKC", text).upper()


def words_of_name(group: str) -> list[str]:
    """The telling words of one component group of a name, folded: also those of two letters."""
    found = []
    for place, part in enumerate(group.split("^")):
        for word in WORD.findall(fold(part)):
            is_title = place >= PARTS_OF_A_NAME and word in TITLES
            if len(word) > 1 and not word.isdigit() and not is_title:
                found.append(word)
    return found


def words_of_number(text: str) -> list[str]:
    """The telling words of an identifier, folded."""
    return [word for word in WORD.findall(fold(text)) if len(word) > (2 if word.isascii() else 1)]


def joined(words: list[str]) -> Iterator[str]:
    """Two parts of a name without anything between them, in both orders, and all of them."""
    yield from ("".join(pair) for pair in permutations(words[:MOST_JOINED], 2))
    yield "".join(words)
    yield "".join(reversed(words))


def otherwise(text: str) -> Iterator[str]:
    """Words that aren't ASCII in other spellings: umlauts with E, bytes that were taken for Latin-1."""
    for word in WORD.findall(unicodedata.normalize("NFKC", text)):
        if not word.isascii():
            yield fold(word.upper().translate(UMLAUTS))
            for written in {word, word.lower(), word.upper(), word.title()}:
                yield from _mojibake(written)


def _mojibake(word: str) -> Iterator[str]:
    for encoding in MOJIBAKE:
        try:
            yield "".join(WORD.findall(fold(word.encode(encoding).decode("latin-1"))))
        except UnicodeError:
            continue


def numbers(text: str) -> set[str]:
    """The numbers in an identifier: its runs of digits, all of them in one, those without leading zeros."""
    runs = [run for run in DIGITS.findall(text) if len(run) >= SHORTEST_NUMBER]
    return with_bare({*runs, "".join(DIGITS.findall(text))})


def with_bare(found: Iterable[str]) -> set[str]:
    """The numbers of five digits and more, also as they are without leading zeros."""
    both = {form for number in found for form in (number, number.lstrip("0"))}
    return {number for number in both if len(number) >= SHORTEST_NUMBER}


@lru_cache(maxsize=4096)
def days(text: str) -> frozenset[str]:
    """The day at the beginning of a DA or DT value in every order, with years of four and two digits."""
    match = re.match(r" *([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})", text)
    if match is None:
        return frozenset()
    year, month, day = match.groups()
    orders = [(year, month, day), (day, month, year), (month, day, year), (year, day, month)]
    forms = {"".join(order) for order in orders}
    forms |= {"".join(part[-2:] for part in order) for order in orders}
    short = [tuple(part.lstrip("0") for part in order) for order in orders[:3]]
    forms |= {"".join(order) for order in short} | {"".join(part[-2:] for part in order) for order in short}
    return frozenset(with_bare(forms))


def year(text: str) -> list[str]:
    """The year at the beginning of a DA value."""
    return re.findall(r"^ *([0-9]{4})", text)


def days_in_words(text: str) -> set[str]:
    """The day with the English name of its month: 31DEC1955, DEC311955, 1955DEC31."""
    match = re.match(r" *([0-9]{4})[.-]?(0[1-9]|1[0-2])[.-]?([0-9]{2})", text)
    if match is None:
        return set()
    year, month, day = match[1], MONTHS[int(match[2]) - 1], match[3]
    return {day + month + year, month + day + year, year + month + day}
