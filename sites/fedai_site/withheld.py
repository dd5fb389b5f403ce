"""What keeps small groups from being had as the difference of two answers.

What is told of a split adds up over patients, so who has the answers for two sets of patients has the answer
for those who are in one and not in the other: a single patient who withdrew, or came, between two runs. So
the site remembers every set that it told of, and leaves a few more patients out of the next one where it
must: all sets together cut the patients that were ever told of into parts, and no part is smaller than the
minimum cell. Any sum or difference of answers, of however many sets, is then one over whole parts.

A patient whose cases or labels changed counts as another one. Sets are remembered by split (train,
validation, test), whatever the study.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.errors import RefusedByPolicy

if TYPE_CHECKING:
    from fedai_site.cohort import Case

SCHEMA = """
CREATE TABLE IF NOT EXISTS told (split TEXT, told TEXT, patient TEXT,  -- with a digest of its cases
    PRIMARY KEY (split, told, patient)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (split TEXT, wanted TEXT, told TEXT,
    PRIMARY KEY (split, wanted)) WITHOUT ROWID;
"""


def withhold(catalogue: Path, split: str, cases: Sequence[Case], cell: int) -> tuple[Case, ...]:
    """The cases of a split that may be told of; empty where that would be fewer than `cell` patients.

    The same cases give the same answer, also after it was told.
    """
    names = _names(cases)
    classes = _classes(cases, names)
    before, told = _read(catalogue, split, _digest(classes))
    kept = before if before is not None else tellable(classes, list(told.values()), cell)
    return tuple(case for case in cases if len(kept) >= cell and names[case.patient] in kept)


def _names(cases: Sequence[Case]) -> dict[str, str]:
    """Patient -> pseudonym and a digest of its cases, their files and labels."""
    contents: dict[str, list[tuple[str, str, int]]] = {}
    for case in cases:
        contents.setdefault(case.patient, []).append((case.id, case.content, case.label))
    return {
        patient: f"{patient}/{sha256(repr(sorted(of)).encode()).hexdigest()[:16]}"
        for patient, of in contents.items()
    }


def _classes(cases: Sequence[Case], names: Mapping[str, str]) -> dict[str, set[int]]:
    """Patient's name -> the classes of its cases."""
    classes: dict[str, set[int]] = {}
    for case in cases:
        classes.setdefault(names[case.patient], set()).update(case.kinds)
    return classes


def remember(catalogue: Path, split: str, wanted: Sequence[Case], told: Sequence[Case], cell: int) -> None:
    """Note a set before anything of it leaves. `wanted`: the cases that `withhold` was given.

    Raises RefusedByPolicy where it would cut off a group of fewer than `cell` patients.
    """
    names = _names(told)
    patients, name = set(names.values()), _digest(names.values())
    if tellable(_classes(told, names), list(_read(catalogue, split, name)[1].values()), cell) != patients:
        raise RefusedByPolicy(
            f"of the {split} cases a group of fewer than {cell} patients could be told from earlier answers",
            hint="patients' rights changed in between; the next run leaves out a few more",
            reason="SMALL_GROUP",
        )
    with _opened(catalogue) as database:
        rows = [(split, name, patient) for patient in sorted(patients)]
        database.executemany("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", rows)
        asked = (split, _digest(set(_names(wanted).values())), name)
        database.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", asked)


def tellable(classes: Mapping[str, Set[int]], told: Sequence[Set[str]], cell: int) -> set[str]:
    """The patients, of those in `classes` (patient -> the classes of its cases), that may be told of.

    Left out are patients of a class that fewer than `cell` have, and those without whom every part that the
    sets `told` and this one cut has `cell` patients or none.
    """
    parts: dict[frozenset[int], set[str]] = {}
    for patient in {*classes, *(patient for one in told for patient in one)}:
        parts.setdefault(frozenset(i for i, one in enumerate(told) if patient in one), set()).add(patient)
    kept, before = set(classes), None
    while kept != before:
        before = set(kept)
        kept -= _rare(classes, kept, cell)
        for sets, part in parts.items():
            kept -= _too_much(kept & part, part - kept if sets else set(), cell)
    return kept if len(kept) >= cell else set()


def _rare(classes: Mapping[str, Set[int]], kept: Set[str], cell: int) -> set[str]:
    """Patients with a case of a class that fewer than `cell` of those kept have."""
    having: dict[int, set[str]] = {}
    for patient in kept:
        for label in classes[patient]:
            having.setdefault(label, set()).add(patient)
    return {patient for patients in having.values() if len(patients) < cell for patient in patients}


def _too_much(inside: Set[str], outside: Set[str], cell: int) -> set[str]:
    """Whom to leave out of a part, so that it is cut into none or `cell` and more on both sides."""
    if len(inside) < cell:
        return set(inside)
    lacking = cell - len(outside) if outside else 0
    return set(sorted(inside)[: max(0, lacking)])


def _digest(patients: Iterable[str]) -> str:
    return sha256(repr(sorted(patients)).encode()).hexdigest()


@contextmanager
def _opened(catalogue: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(catalogue, timeout=30)
    try:
        database.executescript(SCHEMA)
        with database:
            yield database
    finally:
        database.close()


def _read(catalogue: Path, split: str, wanted: str) -> tuple[set[str] | None, dict[str, set[str]]]:
    """What was told when the very same was wanted, if that was before; and every set told."""
    sets: dict[str, set[str]] = {}
    with _opened(catalogue) as database:
        for name, patient in database.execute("SELECT told, patient FROM told WHERE split = ?", (split,)):
            sets.setdefault(name, set()).add(patient)
        found = database.execute(
            "SELECT told FROM wanted WHERE split = ? AND wanted = ?", (split, wanted)
        ).fetchone()
    return (sets.get(found[0], set()) if found else None), sets
