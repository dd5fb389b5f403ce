"""How a known value may be written: parts of a name in any order, with or without what stands between, in any
script and any encoding.

`key` is the common form in which text is compared: compatible characters folded, small letters, letters and
digits only. `squeezed` is the common form of bytes: small ASCII letters, separators and zero bytes left out,
which makes UTF-16 and UTF-32 of ASCII text the same as ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from fedai_site.verification.known import Kind, Value, date_of

SEPARATORS = b"\0\t\n\r !\"#'()*,-./:;<=>^_`|~"
SMALL = bytes(range(256)).lower()
NAME_PARTS = re.compile(r"[\s^,.·‧・/_-]+")
CJK = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7a3]+")
CODECS = (
    "utf-8", "utf-16-le", "utf-16-be", "cp949", "iso2022_kr", "cp932", "euc_jp", "iso2022_jp_2", "gb18030",
    "big5",
    "latin-1", "cp1252", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-9", "cp1251", "koi8-r", "cp874",
)  # fmt: skip
ESCAPES = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]|[\x0e\x0f]")
SHORTEST_PATTERN = 6
MOST_PARTS = 5


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write a known value: as text, and whether it is only a part of it (one word of a name)."""

    text: str
    kind: Kind
    is_part: bool = False


def key(text: str) -> str:
    """The common form of text for comparison."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def squeezed(data: bytes) -> bytes:
    """The common form of bytes for comparison."""
    return ESCAPES.sub(b"", data).translate(SMALL, SEPARATORS)


def spellings(value: Value) -> Iterator[Spelling]:
    """All ways to write a value that are looked for."""
    if value.kind is Kind.DATE:
        if (date := date_of(value.text)) is not None:
            yield Spelling(date, Kind.DATE)
    elif value.kind is Kind.NAME:
        yield from _name(value.text)
    elif value.kind is Kind.NUMBER:
        yield from _number(value.text)
    elif value.kind is Kind.TEXT and "@" in value.text:
        yield Spelling(value.text, Kind.TEXT)
        yield Spelling(value.text.partition("@")[0], Kind.TEXT, is_part=True)
    else:
        yield Spelling(value.text, value.kind)


def _name(text: str) -> Iterator[Spelling]:
    """Each component group of a name (PS3.5 6.2.1.1) by itself: whole in all orders, then its parts."""
    for group in text.split("="):
        parts = [part for part in NAME_PARTS.split(group) if part][:MOST_PARTS]
        for split in _splits(parts):
            if len(split) > 1:
                yield from (Spelling("".join(order), Kind.NAME) for order in _orders(split))
            yield from (Spelling(part, Kind.NAME, len(split) > 1) for part in split if len(part) > 1)


def _splits(parts: list[str]) -> list[list[str]]:
    """A name as it is separated; one in Hangul or Han characters without a space after the first and the
    second.
    """
    whole = parts[0] if len(parts) == 1 else ""
    if not (CJK.fullmatch(whole) and 2 <= len(whole) <= 4):
        return [parts]
    return [[whole[:at], whole[at:]] for at in (1, 2) if len(whole) > at and (at == 1 or len(whole) == 4)]


def _orders(parts: list[str]) -> Iterable[tuple[str, ...]]:
    """Whole names of up to three parts in all orders, longer ones forwards and backwards; then any two
    parts.
    """
    whole = permutations(parts) if len(parts) <= 3 else (tuple(parts), tuple(reversed(parts)))
    pairs = permutations(parts, 2) if len(parts) > 2 else ()
    return dict.fromkeys((*whole, *pairs))


def _number(text: str) -> Iterator[Spelling]:
    """As it is, and what is left without leading zeros; a phone number also with Korea's country code."""
    plain = key(text)
    yield Spelling(text, Kind.NUMBER)
    if plain.isdigit() and plain.lstrip("0") != plain and len(plain.lstrip("0")) >= SHORTEST_PATTERN:
        yield Spelling(plain.lstrip("0"), Kind.NUMBER)
        if plain.startswith("01") and len(plain) >= 10:
            yield Spelling(f"82{plain[1:]}", Kind.NUMBER)


def patterns(spelling: Spelling) -> set[bytes]:
    """The squeezed bytes of a spelling in every encoding that can hold it, long enough to mean something."""
    if spelling.text.isascii():
        found = {squeezed(spelling.text.encode())}
    else:
        found = {squeezed(data) for form in _forms(spelling.text) for data in _encoded(form)}
    return {pattern for pattern in found if len(pattern) >= SHORTEST_PATTERN}


def _forms(text: str) -> set[str]:
    """Letters other than ASCII in both cases, composed and decomposed."""
    cases = {text, text.lower(), text.upper(), text.title()}
    return {unicodedata.normalize(form, case) for case in cases for form in ("NFC", "NFD")}


def _encoded(text: str) -> Iterator[bytes]:
    for codec in CODECS:
        try:
            yield text.encode(codec)
        except UnicodeError:
            continue


@cache
def decoders() -> tuple[str, ...]:
    """Names of the codecs that bytes are tried with, one after the other."""
    return (*CODECS, "euc_kr", "gb2312", "hz")


def readings(data: bytes) -> set[str]:
    """The text that bytes may be, in each encoding that they fit."""
    if data.isascii() and b"\x1b" not in data and b"\0" not in data and b"\x0e" not in data:
        return {data.decode("ascii")}
    found = set()
    for raw in {data, ESCAPES.sub(b"", data)}:
        for codec in decoders():
            try:
                found.add(raw.decode(codec))
            except UnicodeError:
                continue
    return found
