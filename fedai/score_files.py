"""Files of scores that somebody already has: one CSV per site, one row per case.

Columns: patient, label (0 or 1), then one per model, any real numbers, higher meaning more likely positive.
No value of a row ever appears in a message.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedai.errors import ConfigError
from fedai.metrics import Floats, Integers, patient_numbers

PATIENT, LABEL = "patient", "label"
SHOWN = 30  # problems told at once
Problem = tuple[int, str]  # line (0: the whole file) and what is wrong there


@dataclass(frozen=True, eq=False)
class SiteScores:
    """One site's rows, in memory only: `scores` float64 [N, models], `positive` bool [N], `numbers` int64 [N]
    (each row's patient, from 0), and how many `patients` there are."""

    site: str
    models: tuple[str, ...]
    scores: Floats
    positive: NDArray[np.bool_]
    numbers: Integers
    patients: int


def read_score_files(paths: Sequence[Path]) -> list[SiteScores]:
    """One site per file, named by it. Columns may stand in any order, and differ in it between files.

    Raises ConfigError with every problem of every file as file:line.
    """
    files = [_File(path) for path in paths]
    problems = [f"{_place(f.path, line)}{what}" for f in files for line, what in f.problems]
    problems += [*_repeated(files), *_differing(files)]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ConfigError(
            "these scores can't be compared:\n  " + "\n  ".join([*problems[:SHOWN], *more]),
            hint=f"columns: {PATIENT}, {LABEL} (0 or 1), then one per model, the same in each site's file",
        )
    models = files[0].models
    return [f.scores(site, models) for f, site in zip(files, site_names(paths), strict=True)]


def site_names(paths: Sequence[Path]) -> list[str]:
    """The files' names without ending; with as many folders before them as it takes to tell them apart."""
    parts = [path.absolute().with_suffix("").parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


class _File:
    """A file as it was read: columns by name, and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.columns: dict[str, list[str]] = {}
        self.lines: list[int] = []
        self.content = b""
        try:
            self.content = path.read_bytes()
            self._take(list(_rows(self.content)))
        except OSError as error:
            self.problems.append((0, f"can't be read: {error.strerror}"))
        except UnicodeDecodeError:
            self.problems.append((0, "is not UTF-8 text: save it as CSV UTF-8"))
        except csv.Error as error:
            self.problems.append((0, f"is not CSV: {error}"))

    def _take(self, rows: list[tuple[int, list[str]]]) -> None:
        if not rows:
            self.problems.append((0, f"is empty: its first line names the columns {PATIENT}, {LABEL}, ..."))
            return
        names = [name.strip() for name in rows[0][1]]
        if separator := _separator(names):
            what = (
                f"is separated by {separator}, not by commas: save it as CSV with commas and decimal points"
            )
            self.problems.append((rows[0][0], what))  # of the cells nothing can be said
            return
        self.problems += [(rows[0][0], what) for what in _header_problems(names)]
        body = rows[1:]
        self.problems += [
            (n, f"has {len(cells)} cells, not {len(names)}") for n, cells in body if len(cells) != len(names)
        ]
        whole = [(n, cells) for n, cells in body if len(cells) == len(names)]
        if not body:
            self.problems.append((0, "has no rows"))
        self.lines = [n for n, _ in whole]
        if len(set(names)) == len(names):
            cells = zip(*(cells for _, cells in whole), strict=True) if whole else [()] * len(names)
            self.columns = {n: [c.strip() for c in column] for n, column in zip(names, cells, strict=True)}
            self.problems += sorted(self._cell_problems())

    def _cell_problems(self) -> Iterator[Problem]:
        for line, cell in zip(self.lines, self.columns.get(PATIENT, []), strict=False):
            if not cell:
                yield line, "has no patient"
        for line, cell in zip(self.lines, self.columns.get(LABEL, []), strict=False):
            if _number(cell) not in (0.0, 1.0):
                yield line, f"{LABEL} is not 0 or 1" if cell else f"{LABEL} is missing"
        for model in self.models:
            if _numbers(self.columns[model]) is None:
                for line, cell in zip(self.lines, self.columns[model], strict=True):
                    if not np.isfinite(_number(cell)):
                        yield line, f"{model} is {_fault(cell)}"

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name not in (PATIENT, LABEL))

    def scores(self, site: str, models: tuple[str, ...]) -> SiteScores:
        columns = [np.array([float(cell) for cell in self.columns[model]]) for model in models]
        positive = np.array([float(cell) == 1 for cell in self.columns[LABEL]], dtype=np.bool_)
        numbers, patients = patient_numbers(self.columns[PATIENT], len(self.lines))
        return SiteScores(site, models, np.stack(columns, axis=1), positive, numbers, patients)


def _rows(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows that aren't blank, with the line that each begins on."""
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    line = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _separator(names: Sequence[str]) -> str:
    """What separates the columns in place of commas, in a word; empty where commas do."""
    found = [word for mark, word in ((";", "semicolons"), ("\t", "tabs")) if mark in names[0]]
    return found[0] if found and len(names) == 1 else ""


def _header_problems(names: Sequence[str]) -> Iterator[str]:
    for name, times in Counter(names).items():
        if not name:
            yield "a column has no name"
        elif times > 1:
            yield f"column {name} is there {times} times"
    for name in (PATIENT, LABEL):
        if name not in names:
            yield f"there is no column {name}"
    if not set(names) - {PATIENT, LABEL, ""}:
        yield "there is no column of a model's scores"


def _number(cell: str) -> float:
    """NaN for what is not a number as a program writes it."""
    try:
        return float(cell) if "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


def _numbers(cells: Sequence[str]) -> Floats | None:
    """All cells as float64 [N], or None if one of them is no finite number."""
    values = np.array([_number(cell) for cell in cells])
    return values if np.isfinite(values).all() else None


def _fault(cell: str) -> str:
    if not cell or cell.lower() in ("na", "n/a", "null", "none"):
        return "missing"
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return "not a finite number (NaN or infinite)"
    return "not a number"


def _place(path: Path, line: int) -> str:
    return f"{path}:{line}: " if line else f"{path}: "


def _repeated(files: Sequence[_File]) -> Iterator[str]:
    """Files given twice, or copies of one: each case would count twice."""
    seen: dict[bytes, Path] = {}
    for file in files:
        digest = hashlib.sha256(file.content).digest()
        if file.content and digest in seen:
            yield f"{file.path}: holds the same rows as {seen[digest]}; a case may be there once only"
        seen.setdefault(digest, file.path)


def _differing(files: Sequence[_File]) -> Iterator[str]:
    """Models that some files have and others lack."""
    known = [file for file in files if file.columns]
    models = {model: None for file in known for model in file.models}
    for file in known:
        if lacking := [model for model in models if model not in file.columns]:
            having = next(f.path for f in known if lacking[0] in f.columns)
            yield f"{file.path}:1: lacks {', '.join(lacking)}, which {having} has"
