"""What keeps small groups from being had as the difference of two answers.

What is told of a split adds up over patients, so who has the answers for two sets of patients has the answer
for those who are in one and not in the other: a single patient who withdrew, or came, between two runs. So
the site remembers every set that it told of, and leaves a few more patients out of the next one where it
must: all sets together cut the patients that were ever told of into parts, and no part is smaller than the
minimum cell. Any sum or difference of answers, of however many sets, is then one over whole parts.

A patient whose cases, files or labels changed counts as another one. So this holds for patients who have the
same cases in every set, and not where studies take one image of a patient here and both of them there, or
where all files were cleaned anew in between. Sets are remembered by split (train, validation, test), whatever
the study. So are subgroups of a split (see `groups`), by variable: with the sets of the split, those of each
variable cut the patients into parts that are large enough too.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.errors import RefusedByPolicy

if TYPE_CHECKING:
    from fedai_site.cohort import Case

MOST_STEPS = 5_000
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
    names = names_of(cases)
    classes = classes_of(cases, names)
    before, told = read_told(catalogue, split, digest_of(classes))
    kept = before if before is not None else _tellable(catalogue, split, classes, told, cell)
    return tuple(case for case in cases if len(kept) >= cell and names[case.patient] in kept)


def _tellable(
    catalogue: Path, split: str, classes: Mapping[str, Set[int]], told: Mapping[str, Set[str]], cell: int
) -> set[str]:
    """The patients of a split that may be told of, beside its subgroups that were; none in the rare case that
    these together would cut off a small group.
    """
    before, groups = list(told.values()), groups_told(catalogue, split)
    kept = tellable(classes, before, cell, list(groups.values()))
    sets = [*before, *(one for family in groups.values() for one in family)]
    return set() if groups and kept not in before and isolates([*sets, kept], cell) else kept


def names_of(cases: Sequence[Case]) -> dict[str, str]:
    """Patient -> pseudonym and a digest of its cases, their files and labels: the same in every study."""
    contents: dict[str, list[tuple[str, str, str]]] = {}
    for case in cases:
        contents.setdefault(case.patient, []).append((case.id, case.content, case.word))
    return {
        patient: f"{patient}/{sha256(repr(sorted(of)).encode()).hexdigest()[:16]}"
        for patient, of in contents.items()
    }


def classes_of(cases: Sequence[Case], names: Mapping[str, str]) -> dict[str, set[int]]:
    """Patient's name -> the classes of its cases."""
    classes: dict[str, set[int]] = {}
    for case in cases:
        classes.setdefault(names[case.patient], set()).update(case.kinds)
    return classes


def remember(catalogue: Path, split: str, wanted: Sequence[Case], told: Sequence[Case], cell: int) -> None:
    """Note a set before anything of it leaves. `wanted`: the cases that `withhold` was given.

    Raises RefusedByPolicy where it would cut off a group of fewer than `cell` patients.
    """
    names = names_of(told)
    patients, name = set(names.values()), digest_of(names.values())
    before = read_told(catalogue, split, name)[1]
    if _tellable(catalogue, split, classes_of(told, names), before, cell) != patients:
        raise RefusedByPolicy(
            f"of the {split} cases a group of fewer than {cell} patients could be told from earlier answers",
            hint="patients' rights changed in between; the next run leaves out a few more",
            reason="SMALL_GROUP",
        )
    keep_told(catalogue, [(split, digest_of(set(names_of(wanted).values())), patients)])


def keep_told(catalogue: Path, sets: Iterable[tuple[str, str, Set[str]]]) -> None:
    """Note sets of patients as (split or `split/variable`, digest of what was wanted, patients)."""
    with _opened(catalogue) as database:
        for split, wanted, patients in sets:
            name = digest_of(patients)
            rows = [(split, name, patient) for patient in sorted(patients)]
            database.executemany("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", rows)
            database.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", (split, wanted, name))


def tellable(
    classes: Mapping[str, Set[int]],
    told: Sequence[Set[str]],
    cell: int,
    families: Sequence[Sequence[Set[str]]] = (),
    beside: Mapping[str, Set[int]] = {},
) -> set[str]:
    """The patients, of those in `classes` (patient -> the classes of its cases), that may be told of.

    Left out are patients of a class that fewer than `cell` have, and those without whom every part that the
    sets `told` and this one cut has `cell` patients or none. With `families` of further sets that were told
    it holds for the parts that `told` and each family cut; with `beside`, the classes of all whom the answer
    is about, for the patients of each class too.
    """
    parts = [part for family in families or [()] for part in _parts([*told, *family], classes)]
    labels = {label for of in beside.values() for label in of}
    parts += [(cut, {p for p in part if c in beside.get(p, ())}) for cut, part in parts for c in labels]
    kept, before = set(classes), None
    while kept != before:
        before = set(kept)
        kept -= _rare(classes, kept, cell)
        for was_told, part in parts:
            inside, outside = kept & part, part - kept if was_told else set()
            kept -= _too_much(_by_need(inside, kept, parts) if outside else inside, outside, cell)
    return kept if len(kept) >= cell else set()


Part = tuple[bool, Set[str]]  # whether it was told of, and its patients


def _parts(told: Sequence[Set[str]], patients: Iterable[str]) -> list[Part]:
    """What sets cut these and their own patients into."""
    parts: dict[frozenset[int], set[str]] = {}
    for patient in {*patients, *(patient for one in told for patient in one)}:
        parts.setdefault(frozenset(i for i, one in enumerate(told) if patient in one), set()).add(patient)
    return [(bool(sets), part) for sets, part in parts.items()]


def _by_need(inside: Set[str], kept: Set[str], parts: Sequence[Part]) -> list[str]:
    """Those first who are in most of the parts that lost somebody: leaving them out helps there too."""
    lost = [part for was_told, part in parts if was_told and not part <= kept]
    return sorted(inside, key=lambda patient: (-sum(patient in part for part in lost), patient))


def isolates(sets: Iterable[Set[str]], cell: int) -> bool:
    """Whether there is a sum or difference of what is told of `sets`, with any factors, that is one over 1 to
    `cell` - 1 patients. True also where that isn't found out within `MOST_STEPS`.

    It then holds for products over two or more patients of a set as well: with all but one of them fixed,
    they are such a sum.
    """
    distinct = sorted({frozenset(one) for one in sets}, key=sorted)
    patterns = Counter(tuple(int(p in one) for one in distinct) for p in frozenset().union(*distinct))
    open_: list[tuple[Rows, Rows, int]] = [(dict(patterns), {}, cell - 1)]
    for _ in range(MOST_STEPS):
        if not open_:
            return False
        rows, counted, left = open_.pop()  # `counted` are to be in the sum, so many more patients may be
        zero = next((row for row, patients in rows.items() if patients > left), None)
        if zero is None:
            if (rows or counted) and sum(rows.values()) <= left:
                return True
            if not rows:
                continue
            zero = next(iter(rows))
            others = {row: n for row, n in rows.items() if row != zero}
            open_.append((others, {**counted, zero: 1}, left - rows[zero]))
        still = _without(counted, zero)
        if sum(still.values()) == sum(counted.values()):
            open_.append((_without(rows, zero), still, left))
    return True


Row = tuple[int, ...]  # of some patients: by which factor each set's answer counts them
Rows = dict[Row, int]  # and how many patients


def _without(rows: Rows, zero: Row) -> Rows:
    """What is left of rows where the sum over `zero`'s patients is none; rows that are then none too go, and
    those that are multiples of each other are one.
    """
    at = next(i for i, x in enumerate(zero) if x)
    left: Counter[Row] = Counter()
    for row, patients in rows.items():
        rest = [x * zero[at] - row[at] * y for x, y in zip(row, zero, strict=True)]
        if factor := math.gcd(*rest):
            sign = 1 if next(x for x in rest if x) > 0 else -1
            left[tuple(sign * x // factor for x in rest)] += patients
    return dict(left)


def _rare(classes: Mapping[str, Set[int]], kept: Set[str], cell: int) -> set[str]:
    """Patients with a case of a class that fewer than `cell` of those kept have."""
    having: dict[int, set[str]] = {}
    for patient in kept:
        for label in classes[patient]:
            having.setdefault(label, set()).add(patient)
    return {patient for patients in having.values() if len(patients) < cell for patient in patients}


def _too_much(inside: Collection[str], outside: Set[str], cell: int) -> set[str]:
    """Whom to leave out of a part, so that it is cut into none or `cell` and more on both sides."""
    if len(inside) < cell:
        return set(inside)
    lacking = cell - len(outside) if outside else 0
    return set(list(inside)[: max(0, lacking)])


def digest_of(patients: Iterable[str]) -> str:
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


def groups_told(catalogue: Path, split: str) -> dict[str, list[set[str]]]:
    """Variable -> every set of patients of the split that was told of as one of its subgroups."""
    found: dict[str, dict[str, set[str]]] = {}
    with _opened(catalogue) as database:
        query = "SELECT split, told, patient FROM told WHERE split LIKE ?"
        for place, name, patient in database.execute(query, (f"{split}/%",)):
            found.setdefault(place, {}).setdefault(name, set()).add(patient)
    return {place.partition("/")[2]: list(sets.values()) for place, sets in found.items()}


def read_told(catalogue: Path, split: str, wanted: str) -> tuple[set[str] | None, dict[str, set[str]]]:
    """What was told when the very same was wanted, if that was before; and every set told."""
    sets: dict[str, set[str]] = {}
    with _opened(catalogue) as database:
        for name, patient in database.execute("SELECT told, patient FROM told WHERE split = ?", (split,)):
            sets.setdefault(name, set()).add(patient)
        found = database.execute(
            "SELECT told FROM wanted WHERE split = ? AND wanted = ?", (split, wanted)
        ).fetchone()
    return (sets.get(found[0], set()) if found else None), sets
