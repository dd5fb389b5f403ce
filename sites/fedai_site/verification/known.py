"""The site's own list of known identifiers: a CSV file with free columns, one patient a line.

What a column holds is told from its heading and its values. Nothing of it is ever written anywhere.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedai.errors import ConfigError

ENCODINGS = ("utf-8-sig", "cp949", "utf-16")
MAXIMUM_BYTES = 256 * 2**20


class Kind(StrEnum):
    """What a known value is, which decides how it may be spelled."""

    NAME = "name"
    NUMBER = "number"
    DATE = "date"
    UID = "uid"
    TEXT = "text"


NUMBER_HEADING = re.compile(
    r"rrn|주민|phone|tel|mobile|fax|전화|휴대|연락|ssn|mrn|accession|번호|\bno\b|\bnr\b|\bid\b|_id\b|id$"
)
NAME_HEADING = re.compile(
    r"name|이름|성명|성함|family|given|surname|physician|doctor|operator|의사|氏名|姓名"
)
TEXT_HEADING = re.compile(
    r"addr|주소|street|city|hospital|institution|병원|mail|note|comment|study|series|patient|환자"
)
HEADINGS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.DATE, re.compile(r"birth(?!.*name)|\bdob\b|생년월일|생일|date|일자|날짜")),
    (Kind.NUMBER, NUMBER_HEADING),
    (Kind.UID, re.compile(r"uid")),
    (Kind.NAME, NAME_HEADING),
    (Kind.TEXT, TEXT_HEADING),
)  # fmt: skip
NOT_IDENTIFYING = re.compile(r"^(sex|gender|성별|age|나이|race|ethnic.*|modality|split|label|class)$")
PSEUDONYMS = re.compile(r"pseudonym|가명")
DATE = re.compile(r"(\d{4})[-./년 ]{0,2}(\d{1,2})[-./월 ]{0,2}(\d{1,2})일?(?:[T ].*)?")
UID = re.compile(r"[0-2](?:\.\d+){3,}")
LONGEST_VALUE = 1024


@dataclass(frozen=True, slots=True)
class Value:
    """One known value, the column that it stands in, and the pseudonym of its patient if the list has one."""

    text: str
    kind: Kind
    column: str
    pseudonym: str = ""


@dataclass(frozen=True)
class Known:
    """The list as read: its values without repetitions, and which columns were searched and which not."""

    values: tuple[Value, ...]
    rows: int
    columns: tuple[str, ...]
    not_searched: tuple[str, ...]


def read_known(path: Path) -> Known:
    """Read the list, with or without a line of headings. Raises ConfigError if it can't be read or is
    empty.
    """
    lines = [line for line in _lines(path) if any(cell.strip() for cell in line)]
    if not lines:
        raise ConfigError(
            "the list of known identifiers is empty", where=path.name, hint="a line of headings first"
        )
    has_headings = any(_means_something(heading) for heading in lines[0])
    headings = [_safe(heading, number, has_headings) for number, heading in enumerate(lines[0], 1)]
    rows = [line for line in lines[has_headings:] if any(cell.strip() for cell in line)]
    columns = {number: column for number, column in enumerate(headings) if not _is_left_out(column)}
    at = next((n for n, column in enumerate(headings) if PSEUDONYMS.search(column.lower())), None)
    values = _values(rows, columns, at)
    left_out = tuple(column for number, column in enumerate(headings) if number not in columns)
    return Known(tuple(dict.fromkeys(values)), len(rows), tuple(columns.values()), left_out)


def _means_something(heading: str) -> bool:
    words = heading.strip().lower()
    patterns = (NOT_IDENTIFYING, PSEUDONYMS, *(pattern for _, pattern in HEADINGS))
    return any(pattern.search(words) for pattern in patterns)


def _safe(heading: str, number: int, has_headings: bool) -> str:
    """The heading, unless it may be a value itself: headings are printed in the report."""
    digits = sum(character.isdigit() for character in heading)
    looks_like_one = has_headings and heading.strip() and digits < 4 and not set("@^=") & set(heading)
    return heading.strip()[:64] if looks_like_one else f"column {number}"


def _is_left_out(column: str) -> bool:
    return bool(NOT_IDENTIFYING.match(column.lower()) or PSEUDONYMS.search(column.lower()))


def _lines(path: Path) -> Iterator[list[str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("the list of known identifiers can't be read", where=path.name) from error
    if len(data) > MAXIMUM_BYTES:
        raise ConfigError("the list of known identifiers is too large", where=path.name, hint="split it")
    text = unicodedata.normalize("NFC", _decoded(data, path))
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        yield from csv.reader(text.splitlines(), delimiter=delimiter)
    except csv.Error as error:
        raise ConfigError("the list of known identifiers is no CSV file", where=path.name) from error


def _decoded(data: bytes, path: Path) -> str:
    order = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ENCODINGS
    for encoding in order:
        try:
            return data.decode(encoding)
        except UnicodeError:
            continue
    raise ConfigError("the list of known identifiers is neither UTF-8 nor CP949", where=path.name)


def _values(rows: Iterable[list[str]], columns: dict[int, str], pseudonym_at: int | None) -> Iterator[Value]:
    for row in rows:
        pseudonym = row[pseudonym_at].strip() if pseudonym_at is not None and pseudonym_at < len(row) else ""
        for number, column in columns.items():
            text = row[number].strip() if number < len(row) else ""
            if len(text) >= 2:
                yield Value(text[:LONGEST_VALUE], kind_of(column, text), column, pseudonym)


def kind_of(column: str, text: str) -> Kind:
    """What a value is: a date or a UID if it looks so, else what its heading says, else by its digits."""
    if UID.fullmatch(text):
        return Kind.UID
    heading = next((kind for kind, words in HEADINGS if words.search(column.lower())), None)
    if DATE.fullmatch(text) and heading in (None, Kind.DATE):
        return Kind.DATE
    if heading in (Kind.NUMBER, Kind.NAME, Kind.TEXT):
        return heading
    digits = sum(character.isdigit() for character in text)
    return Kind.NUMBER if 2 * digits >= len(text) else Kind.TEXT


def date_of(text: str) -> str | None:
    """A known date as YYYYMMDD; None if it isn't one."""
    match = DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups())
    return f"{year:04}{month:02}{day:02}" if 1 <= month <= 12 and 1 <= day <= 31 else None
