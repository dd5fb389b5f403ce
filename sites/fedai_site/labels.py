"""The site's label file: a CSV with one key column and one label column.

Its values never appear in a message.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedai.errors import ConfigError

KEYS = ("PatientID", "AccessionNumber", "SOPInstanceUID")
LABEL = "label"


@dataclass(frozen=True)
class LabelRow:
    """One label: the line it stands on (1 = header), the key as the archive writes it, and the class name."""

    line: int
    key: str
    label: str


@dataclass(frozen=True)
class LabelTable:
    """All rows of a label file; `kind` is the key column's name. Lives in memory only."""

    kind: str
    rows: tuple[LabelRow, ...]


def read_labels(path: Path) -> LabelTable:
    """Read a UTF-8 CSV with a header: exactly one of PatientID, AccessionNumber, SOPInstanceUID, and `label`.

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
    kind = next(name for name in header if name in KEYS)
    key_at, label_at = header.index(kind), header.index(LABEL)
    rows = [
        _row(line, cells, key_at, label_at)
        for line, cells in lines[1:]
        if any(cell.strip() for cell in cells)
    ]
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
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        yield "columns must be separated by commas"


def _row(line: int, cells: list[str], key_at: int, label_at: int) -> LabelRow:
    cell = [*cells, *[""] * (max(key_at, label_at) + 1)]
    return LabelRow(line, cell[key_at].strip(), cell[label_at].strip())


def _row_problems(rows: list[LabelRow], kind: str) -> Iterator[tuple[int, str]]:
    first: dict[str, LabelRow] = {}
    for row in rows:
        if not row.key:
            yield row.line, f"{kind} is empty"
        if not row.label:
            yield row.line, f"{LABEL} is empty"
        before = first.setdefault(row.key, row) if row.key else row
        if before is not row:
            same = before.label == row.label
            yield (
                row.line,
                f"repeats line {before.line}"
                if same
                else f"another label than line {before.line} for the same {kind}",
            )


def _fail(path: Path, problems: list[tuple[int, str]]) -> None:
    if problems:
        text = "\n".join(f"{path}:{line}: {problem}" for line, problem in problems)
        raise ConfigError(text, hint="patients are named by their line only")
