"""The site's label file: a CSV with one key column and one label column, and, where it says so, who read and
what the label is from.

Its values never appear in a message.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from fedai.errors import ConfigError

KEYS = ("PatientID", "AccessionNumber", "SOPInstanceUID")
LABEL, READER, SOURCE = "label", "reader", "source"
CONSENSUS = "consensus"
SOURCES = (
    "radiology report", "image reading", CONSENSUS, "pathology", "laboratory", "follow-up", "registry",
    "algorithm",
)  # fmt: skip
"""What a label may be from: a closed list, since free text may name somebody."""


@dataclass(frozen=True)
class LabelRow:
    """One label: the line it stands on (1 = header), the key as the archive writes it, the class name, and,
    where it is told, who read (a person's name or number: it is kept nowhere) and what it is from.
    """

    line: int
    key: str
    label: str
    reader: str = ""
    source: str = ""


class Label(NamedTuple):
    """A label of a key, with the keyed hash of who read and what it is from, '' where that isn't told."""

    key: str
    label: str
    reader: str = ""
    source: str = ""


class Reading(NamedTuple):
    """What one reader said last of one key."""

    kind: str
    key: str
    reader: str
    source: str
    label: str


@dataclass(frozen=True)
class LabelTable:
    """All rows of a label file; `kind` is the key column's name. Lives in memory only."""

    kind: str
    rows: tuple[LabelRow, ...]


def read_labels(path: Path) -> LabelTable:
    """Read a UTF-8 CSV with a header: exactly one of PatientID, AccessionNumber, SOPInstanceUID, and `label`;
    `reader` and `source` may be there. Several readers may label one key, each once.

    Other columns are ignored. Raises ConfigError that lists every problem as file:line: problem.
    """
    lines = read_lines(path, "the label file")
    if not lines:
        raise ConfigError(
            "the label file is empty",
            where=str(path),
            hint=f"its first line names the columns, for example {KEYS[0]},{LABEL}",
        )
    header = [name.strip() for name in lines[0][1]]
    _fail(path, [(1, problem) for problem in _header_problems(header)])
    more = [(line, len(cells)) for line, cells in lines[1:] if any(c.strip() for c in cells[len(header) :])]
    _fail(
        path, [(line, f"{n} cells under {len(header)} columns: quote what holds a comma") for line, n in more]
    )
    kind = next(name for name in header if name in KEYS)
    places = [header.index(name) if name in header else None for name in (kind, LABEL, READER, SOURCE)]
    rows = [_row(line, cells, places) for line, cells in lines[1:] if any(cell.strip() for cell in cells)]
    _fail(path, list(_row_problems(rows, kind)))
    return LabelTable(kind, tuple(rows))


def read_lines(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of a UTF-8 CSV. Raises ConfigError, which calls it `what`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [(reader.line_num, cells) for cells in reader]
    except OSError as error:
        problem, hint = f"can't be read: {error.strerror}", "give the path of a CSV file"
    except UnicodeDecodeError:
        problem, hint = "is not UTF-8 text", "save it as CSV UTF-8"
    except csv.Error as error:
        problem, hint = f"is not CSV: {error}", "save it as CSV UTF-8"
    raise ConfigError(f"{what} {problem}", where=str(path), hint=hint)


def _header_problems(header: list[str]) -> Iterator[str]:
    keys = [name for name in header if name in KEYS]
    if len(keys) != 1:
        found = f"key columns {' and '.join(keys)}" if keys else "no key column"
        yield f"{found}; exactly one of {', '.join(KEYS)} is needed"
    if header.count(LABEL) != 1:
        yield f"{header.count(LABEL) or 'no'} column named {LABEL}; exactly one is needed"
    for name in (READER, SOURCE):
        if header.count(name) > 1:
            yield f"{header.count(name)} columns named {name}; one at most"
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        yield "columns must be separated by commas"


def _row(line: int, cells: list[str], places: list[int | None]) -> LabelRow:
    """Of the columns at `places`: key, label, reader, source; None where there is no such column."""
    found = ["" if at is None or at >= len(cells) else cells[at].strip() for at in places]
    key, label, reader, source = found
    who = normalize("NFC", " ".join(reader.split()).casefold())
    return LabelRow(line, key, label, who, source.casefold())


def _row_problems(rows: list[LabelRow], kind: str) -> Iterator[tuple[int, str]]:
    first: dict[tuple[str, str], LabelRow] = {}
    for row in rows:
        if row.source and row.source not in SOURCES:
            yield row.line, f"{SOURCE} is none of: {', '.join(SOURCES)}"
        if not row.key:
            yield row.line, f"{kind} is empty"
        if not row.label:
            yield row.line, f"{LABEL} is empty"
        before = first.setdefault((row.key, row.reader), row) if row.key else row
        if before is not row:
            same = f"the same {kind} and {READER}" if row.reader else f"the same {kind}"
            yield (
                row.line,
                f"repeats line {before.line}"
                if before.label == row.label
                else f"another label than line {before.line} for {same}",
            )


def _fail(path: Path, problems: list[tuple[int, str]]) -> None:
    if problems:
        text = "\n".join(f"{path}:{line}: {problem}" for line, problem in problems)
        raise ConfigError(text, hint="patients are named by their line only")
