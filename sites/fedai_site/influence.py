"""Which runs and rounds used which patients: noted at the site before the work begins, and kept there.

A roster is a set of patients with their numbers of cases by split; rounds that use the same one share it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedai.wire import Task
    from fedai_site.cohort import Case

SCHEMA = """
CREATE TABLE IF NOT EXISTS rosters (roster TEXT, patient TEXT, split TEXT, cases INTEGER NOT NULL,
    PRIMARY KEY (roster, patient, split)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, run TEXT NOT NULL,
    run_id TEXT NOT NULL,              -- Flower's, which no two runs share; '' outside a federation
    study TEXT NOT NULL, task TEXT NOT NULL, round INTEGER NOT NULL, model TEXT NOT NULL,
    roster TEXT NOT NULL, came TEXT NOT NULL
);
"""
BEGUN, ANSWERED, FAILED, DISCARDED = "begun", "answered", "failed", "discarded"
SPLITS_OF: dict[str, tuple[str, ...]] = {
    "train": ("train", "validation"),
    "train_alone": ("train",),
    "validate": ("validation",),
    "score": ("test",),
    "place": ("test",),
}
NOT_UNLEARNED = "past models are not unlearned: what they took from this patient's cases stays in them"


class Discarded(Exception):
    """Work that used a patient who withdrew meanwhile; nothing of it leaves."""


@dataclass(frozen=True)
class Use:
    """One use of a patient's cases. `came`: what came of it: begun, answered, failed or discarded."""

    at: str
    run: str
    run_id: str
    study: str
    task: str
    round: int
    model: str
    came: str
    cases: Mapping[str, int]


@contextmanager
def noted(catalogue: Path, task: Task, run_id: str, splits: Mapping[str, Sequence[Case]]) -> Iterator[None]:
    """Note that a task uses cases, then what came of it. A use whose note can't be written doesn't happen."""
    used = SPLITS_OF.get(task.kind, ())
    counts = Counter((case.patient, split) for split in used for case in splits[split])
    number = _begin(catalogue, task, run_id, counts) if counts else 0
    try:
        yield
    except BaseException as error:
        _end(catalogue, number, DISCARDED if isinstance(error, Discarded) else FAILED)
        raise
    _end(catalogue, number, ANSWERED)


def _open(catalogue: Path) -> sqlite3.Connection:
    database = sqlite3.connect(catalogue, timeout=30)
    database.executescript(SCHEMA)
    return database


@contextmanager
def _opened(catalogue: Path) -> Iterator[sqlite3.Connection]:
    database = _open(catalogue)
    try:
        with database:
            yield database
    finally:
        database.close()


def _begin(catalogue: Path, task: Task, run_id: str, counts: Mapping[tuple[str, str], int]) -> int:
    rows = sorted((patient, split, cases) for (patient, split), cases in counts.items())
    roster = sha256(repr(rows).encode()).hexdigest()[:32]
    with _opened(catalogue) as database:
        known = database.execute("SELECT 1 FROM rosters WHERE roster = ? LIMIT 1", (roster,)).fetchone()
        if not known:
            database.executemany("INSERT INTO rosters VALUES (?, ?, ?, ?)", [(roster, *row) for row in rows])
        facts = (_now(), task.run, run_id, task.study, task.kind, task.round, _model(task), roster, BEGUN)
        done = database.execute("INSERT INTO uses VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", facts)
        return int(done.lastrowid or 0)


def _model(task: Task) -> str:
    return task.model or ", ".join(task.models)


def _end(catalogue: Path, number: int, came: str) -> None:
    if number:
        with _opened(catalogue) as database:
            database.execute("UPDATE uses SET came = ? WHERE number = ?", (came, number))


def uses_of(catalogue: Path, patient: str) -> list[Use]:
    """Every use of a patient's cases, oldest first; it says the same after a withdrawal."""
    query = """SELECT number, at, run, run_id, study, task, round, model, came, split, cases
        FROM uses JOIN rosters USING (roster) WHERE patient = ? ORDER BY number, split"""
    found: dict[int, Use] = {}
    with _opened(catalogue) as database:
        for number, at, run, run_id, study, task, round_, model, came, split, cases in database.execute(
            query, (patient,)
        ):
            before = found[number].cases if number in found else {}
            facts = (at, run, run_id, study, task, round_, model, came)
            found[number] = Use(*facts, {**before, split: cases})
    return list(found.values())


def known_runs(catalogue: Path) -> set[tuple[str, str, str]]:
    """(run, Flower's number, study) of every run whose uses are noted here."""
    with _opened(catalogue) as database:
        return set(database.execute("SELECT DISTINCT run, run_id, study FROM uses"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
