"""All spellings of all known values, ready to be looked up in text (by key) and searched for in bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fedai_site.verification.dummies import PSEUDONYM
from fedai_site.verification.known import Kind, Known
from fedai_site.verification.search import Search
from fedai_site.verification.spellings import key, patterns, spellings

WORDS = re.compile(r"[^\W_]+")
RUNS = re.compile(r"\d+|[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7a3]+|[^\W\d_]+")
DIGITS = re.compile(r"\d+")
HEX = re.compile(r"[0-9a-f]{16,}")
LONGEST_WINDOW = 4
MOST_WORDS = 20_000
DAY_LAST = re.compile(r"(?<!\d)(\d{4})\D{1,3}(\d{1,2})\D{1,3}(\d{1,2})(?!\d)")
DAY_FIRST = re.compile(r"(?<!\d)(\d{1,2})\W{1,2}(\d{1,2})\W{1,2}(\d{4})(?!\d)")
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH = rf"({'|'.join(MONTHS)})[a-z]*"
DAY_MONTH = re.compile(
    rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th)?\W{{0,3}}{MONTH}\W{{0,3}}(\d{{4}})(?!\d)", re.IGNORECASE
)
MONTH_DAY = re.compile(rf"{MONTH}\W{{0,3}}(\d{{1,2}})(?:st|nd|rd|th)?\W{{0,3}}(\d{{4}})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a spelling comes from: column, kind, whether it is a part of a name, the patient's pseudonym
    if known.
    """

    column: str
    kind: Kind
    is_part: bool
    pseudonym: str = ""


@dataclass(frozen=True)
class Index:
    """`keys`: common form of text -> entries. `patterns`: squeezed bytes -> entries. `lengths`: number of
    patterns by length.
    """

    keys: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    patterns: dict[bytes, tuple[Entry, ...]] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    search: Search = field(default_factory=lambda: Search(set()))

    @property
    def is_empty(self) -> bool:
        return not self.keys

    def in_text(self, text: str) -> set[str]:
        """Keys that stand in a text as words, as neighbouring words in a row, or as a date."""
        if self.is_empty:
            return set()
        found = {k for k in _windows(_words(WORDS, text)) if k in self.keys}
        found.update(k for k in _windows(_words(RUNS, text)) if k in self.keys)
        found.update(k for k in _windows(DIGITS.findall(text)) if k in self.keys)
        found.update(date for date in dates_in(text) if date in self.keys)
        found.update(k for k in _inner(text) if any(not e.is_part for e in self.keys.get(k, ())))
        return found


def build(known: Known | None) -> Index:
    """The index of a list of known values."""
    keys: dict[str, dict[Entry, None]] = {}
    found: dict[bytes, dict[Entry, None]] = {}
    for value in known.values if known else ():
        for spelling in spellings(value):
            entry = Entry(value.column, value.kind, spelling.is_part, value.pseudonym)
            if len(common := key(spelling.text)) >= 2:
                keys.setdefault(common, {})[entry] = None
            for pattern in patterns(spelling):
                found.setdefault(pattern, {})[entry] = None
    lengths: dict[int, int] = {}
    for pattern in found:
        lengths[len(pattern)] = lengths.get(len(pattern), 0) + 1
    return Index(
        {k: tuple(e) for k, e in keys.items()},
        {p: tuple(e) for p, e in found.items()},
        lengths,
        Search(set(found)),
    )


def _words(pattern: re.Pattern[str], text: str) -> list[str]:
    """Words in common form, without such that are pseudonyms or hashes."""
    words = pattern.findall(text)[:MOST_WORDS]
    return [
        key(word)
        for word in words
        if len(word) < 13 or not (PSEUDONYM.fullmatch(word) or HEX.fullmatch(word))
    ]


def _windows(words: list[str]) -> Iterator[str]:
    """Each word, and up to four neighbours written as one."""
    for at in range(len(words)):
        for size in range(1, LONGEST_WINDOW + 1):
            if at + size <= len(words):
                yield "".join(words[at : at + size])


def _inner(text: str) -> Iterator[str]:
    """Pieces of three to five characters of what is written in Hangul, Kana or Han without spaces."""
    for run in RUNS.findall(text):
        if not run.isascii() and run[0] >= "\u1100":
            yield from (run[at : at + size] for size in (3, 4, 5) for at in range(len(run) - size + 1))


def dates_in(text: str) -> Iterator[str]:
    """Dates in a text in common forms, as YYYYMMDD; where day and month can't be told apart, both."""
    for year, month, day in DAY_LAST.findall(text):
        yield f"{year}{int(month):02}{int(day):02}"
    for first, second, year in DAY_FIRST.findall(text):
        yield f"{year}{int(second):02}{int(first):02}"
        yield f"{year}{int(first):02}{int(second):02}"
    for day, month, year in DAY_MONTH.findall(text):
        yield f"{year}{MONTHS.index(month.lower()) + 1:02}{int(day):02}"
    for month, day, year in MONTH_DAY.findall(text):
        yield f"{year}{MONTHS.index(month.lower()) + 1:02}{int(day):02}"
    for run in DIGITS.findall(text):
        if len(run) in (10, 12, 14):
            yield run[:8]


def columns_of(entries: Iterable[Entry]) -> str:
    """The columns of some entries as one text."""
    return ", ".join(sorted({entry.column for entry in entries}))
