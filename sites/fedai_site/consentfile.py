"""The file that consent comes in: a CSV, one line a patient. No cell of it ever appears in a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fedai.datause import parse_scope, suggest
from fedai.errors import ConfigError
from fedai_site.labels import read_lines

PATIENT_ID, PSEUDONYM = "PatientID", "pseudonym"
KEYS = (PATIENT_ID, PSEUDONYM)
NEEDED = ("basis", "scope")
COLUMNS = (*NEEDED, "expires", "reference")
BASES = {
    "consent": "the patient's consent",
    "waiver": "a waiver of the review board, whose number is the reference",
    "pipa-28-2": "pseudonymised research under PIPA article 28-2 (Republic of Korea)",
    "opt-out": "a regime in which patients may object and this one did not",
}
PSEUDONYM_PATTERN = re.compile(r"p[a-z2-7]{26}")
LONGEST_REFERENCE = 200


@dataclass(frozen=True)
class ConsentRow:
    """One line (1 = header): the key as the file has it, basis, scope (canonical), last day, reference."""

    line: int
    key: str
    basis: str = ""
    scope: str = ""
    expires: str = ""
    reference: str = ""


@dataclass(frozen=True)
class ConsentTable:
    """All lines of a file; `kind` is the key column's name. Lives in memory only."""

    kind: str
    rows: tuple[ConsentRow, ...]


def read_consents(path: Path) -> ConsentTable:
    """Read a UTF-8 CSV: PatientID or pseudonym, basis, scope, and if need be expires and reference.

    Raises ConfigError that lists every problem as file:line: problem.
    """
    return _read(path, NEEDED, COLUMNS)


def read_patients(path: Path) -> ConsentTable:
    """Read a UTF-8 CSV of which only the column PatientID or pseudonym counts. Raises ConfigError."""
    return _read(path, (), None)


def _read(path: Path, needed: tuple[str, ...], known: tuple[str, ...] | None) -> ConsentTable:
    lines = read_lines(path, "the consent file")
    if not lines:
        raise ConfigError(
            "the consent file is empty", where=str(path), hint=f"its first line is {KEYS[0]},basis,scope"
        )
    header = [name.strip() for name in lines[0][1]]
    _fail(path, [(1, problem) for problem in _header_problems(header, needed, known)])
    kind = next(name for name in header if name in KEYS)
    lines = [(line, cells) for line, cells in lines[1:] if any(cell.strip() for cell in cells)]
    rows = [_row(line, cells, header, kind) for line, cells in lines]
    long = [line for line, cells in lines if len(cells) > len(header)]
    problems = [(line, "more cells than the header has") for line in long]
    problems += [(row.line, text) for row in rows for text in _row_problems(row, kind, bool(needed))]
    problems += _repeated(rows, kind)
    _fail(path, sorted(problems))
    return ConsentTable(kind, tuple(_canonical(row) if needed else row for row in rows))


def _header_problems(
    header: list[str], needed: tuple[str, ...], known: tuple[str, ...] | None
) -> Iterator[str]:
    keys = [name for name in header if name in KEYS]
    if len(keys) != 1:
        found = "both key columns" if keys else "no key column"
        yield f"{found}; exactly one of {', '.join(KEYS)} is needed"
    for name in needed:
        if name not in header:
            yield f"no column named {name}"
    for number, name in enumerate(header, start=1):
        if known is not None and name not in (*KEYS, *known):
            yield f"column {number} is none of this file's{suggest(name, (*KEYS, *known))}"
        elif name in header[: number - 1]:
            yield f"column {number} is named as one before"
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        yield "columns must be separated by commas"


def _row(line: int, cells: list[str], header: list[str], kind: str) -> ConsentRow:
    found = dict(zip(header, (cell.strip() for cell in cells), strict=False))
    return ConsentRow(line, found.get(kind, ""), *(found.get(name, "") for name in COLUMNS))


def _row_problems(row: ConsentRow, kind: str, whole: bool) -> Iterator[str]:
    if not row.key:
        yield f"{kind} is empty"
    elif kind == PSEUDONYM and not PSEUDONYM_PATTERN.fullmatch(row.key):
        yield "the pseudonym is none: 'p' and 26 letters and digits, as in `fedai site consent list`"
    if not whole:
        return
    if row.basis not in BASES:
        yield f"the basis is none of those known here{suggest(row.basis, tuple(BASES))}"
    if row.basis == "waiver" and not row.reference:
        yield "a waiver needs the review board's number as reference"
    if len(row.reference) > LONGEST_REFERENCE or not row.reference.isprintable():
        yield f"the reference is longer than {LONGEST_REFERENCE} characters or holds odd ones"
    yield from _told("the scope's ", lambda: parse_scope(row.scope))
    if row.expires:
        yield from _told("expires is no date: ", lambda: _day(row.expires))


def _told(what: str, read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except ValueError as error:
        yield f"{what}{error}"


def _day(text: str) -> None:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    raise ValueError("write it as 2027-12-31")


def _repeated(rows: list[ConsentRow], kind: str) -> Iterator[tuple[int, str]]:
    first: dict[str, int] = {}
    for row in rows:
        before = first.setdefault(row.key, row.line)
        if row.key and before != row.line:
            yield row.line, f"the {kind} of line {before} again"


def _canonical(row: ConsentRow) -> ConsentRow:
    scope = "; ".join(map(str, parse_scope(row.scope)))
    return ConsentRow(row.line, row.key, row.basis, scope, row.expires, row.reference)


def _fail(path: Path, problems: list[tuple[int, str]]) -> None:
    if problems:
        text = "\n".join(f"{path}:{line}: {problem}" for line, problem in problems)
        raise ConfigError(text, hint="patients are named by their line only; nothing was imported")
