"""What keeps small groups from being had as the difference of two answers.

What is told of a split adds up over patients, so who has the answers for two sets of patients has the answer
for those who are in one and not in the other: a single patient who withdrew, or came, between two runs. So
the site remembers every set that it told of, and leaves a few more patients out of the next one where it
must: all sets together cut the patients that were ever told of into parts, and no part is smaller than the
minimum cell (`parts.tellable`). Any sum or difference of answers, of however many sets, is then one over
whole parts.

That holds for whatever is summed up, one class or one bin of scores too, where each patient is told of by the
same images in all answers. So it is: by those of the first answer that it was in, their files and labels
unchanged, by others of which none was told of before, or not at all (`_offer`). Of patients whose files were
cleaned or labelled anew nothing is told any more: for all but one nothing that counts may have changed.

Sets are remembered by split (train, validation, test), whatever the study, and for its splits together
(`ALL`): under another split seed, the sum over all three is about the same patients. Nor are one or two left
of whom nothing is told, since the number of all is (`_without_few`). So are subgroups of a split (see
`groups`), by variable: with the sets of the split, those of each variable cut the patients into parts that
are large enough too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedai.errors import RefusedByPolicy
from fedai_site.parts import isolates, tellable

if TYPE_CHECKING:
    from fedai_site.cohort import Case

ALL, TRAIN = "all", "train"
SCHEMA = """
CREATE TABLE IF NOT EXISTS told (split TEXT, told TEXT, patient TEXT,  -- by its name
    PRIMARY KEY (split, told, patient)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (split TEXT, wanted TEXT, told TEXT,
    PRIMARY KEY (split, wanted)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told_cases (patient TEXT, image TEXT, content TEXT, word TEXT,  -- digests
    PRIMARY KEY (patient, image)) WITHOUT ROWID;
"""


class Image(NamedTuple):
    """A case by digests: of its id, of what changes with its file or mask, and of its label."""

    id: str
    content: str
    word: str


Splits = Mapping[str, "Sequence[Case]"]
Offer = dict[str, "list[Case]"]  # patient's name -> the cases it would be told of by


@dataclass(frozen=True)
class Memory:
    """What this site told of. `sets`: place (a split, `ALL` or `split/variable`) -> digest -> names of
    patients; `wanted`: place and digest of what was asked -> digest of what was told; `cases`: of each name.
    """

    sets: Mapping[str, Mapping[str, Set[str]]]
    wanted: Mapping[tuple[str, str], str]
    cases: Mapping[str, frozenset[Image]]

    def told(self, place: str) -> list[Set[str]]:
        return list(self.sets.get(place, {}).values())

    def groups(self, split: str) -> dict[str, list[Set[str]]]:
        """Variable -> every set of patients of the split that was told of as one of its subgroups."""
        places = [place for place in self.sets if place.startswith(f"{split}/")]
        return {place.partition("/")[2]: self.told(place) for place in places}

    def answer(self, place: str, wanted: str) -> Set[str] | None:
        """What was told when the very same was wanted, if that was before."""
        name = self.wanted.get((place, wanted))
        return None if name is None else self.sets.get(place, {}).get(name, set())

    def names(self) -> dict[str, dict[str, frozenset[Image]]]:
        """Patient -> the names it was told of by, the largest sets' first, and their cases; empty where
        these weren't noted.
        """
        found: dict[str, dict[str, frozenset[Image]]] = {}
        every = {digest: of for sets in self.sets.values() for digest, of in sets.items()}
        for _, of in sorted(every.items(), key=lambda one: (-len(one[1]), one[0])):
            for name in of:
                found.setdefault(_patient(name), {}).setdefault(name, self.cases.get(name, frozenset()))
        return found


def withhold(catalogue: Path, splits: Splits, cell: int) -> dict[str, tuple[Case, ...]]:
    """The cases of a study's splits that may be told of; of a split none where that would be fewer than
    `cell` patients. The same cases give the same answer, also after it was told.
    """
    with opened(catalogue) as database:
        memory = recall(database)
    offers = {split: _offer(memory, split, cases) for split, cases in splits.items()}
    told = _choose(memory, splits, offers, cell)
    ids = {split: {case.id for name in told[split] for case in offers[split][name]} for split in splits}
    return {split: tuple(case for case in of if case.id in ids[split]) for split, of in splits.items()}


def remember(catalogue: Path, wanted: Splits, told: Splits, cell: int) -> None:
    """Note what of a study's splits may be told of, before anything leaves. `wanted`: the cases that
    `withhold` was given.

    Raises RefusedByPolicy where it would cut off a group of fewer than `cell` patients.
    """
    own = {split: by_name(cases) for split, cases in told.items()}
    names = {split: set(of) for split, of in own.items()}
    keys = {split: digest_of(by_name(cases)) for split, cases in wanted.items()}
    with opened(catalogue, write=True) as database:
        memory = recall(database)
        offers = {split: _offer(memory, split, cases) for split, cases in told.items()}
        may = _choose(memory, told, offers, cell)
        if changed := [split for split, of in names.items() if may[split] != of]:
            raise RefusedByPolicy(
                f"of the {changed[0]} cases a group of fewer than {cell} patients could be told from earlier "
                "answers",
                hint="patients' rights changed in between; the next run leaves out a few more",
                reason="SMALL_GROUP",
            )
        note(database, [(split, keys[split], of) for split, of in names.items()])
        together = {name for of in names.values() for name in of}
        note(database, [(ALL, digest_of(keys.values()), together)])
        note_cases(database, {name: images_of(cases) for of in own.values() for name, cases in of.items()})


def _choose(memory: Memory, wanted: Splits, offers: Mapping[str, Offer], cell: int) -> dict[str, set[str]]:
    """The patients of each split that may be told of, so that it holds for each and for all of them."""
    kept, before = {split: set(of) for split, of in offers.items()}, dict[str, set[str]]()
    while kept != before:
        before = kept
        kept = {split: _of_split(memory, split, offers[split], of, cell) for split, of in kept.items()}
        together = {name: set[int]() for of in kept.values() for name in of}
        may = tellable(together, memory.told(ALL), cell)
        kept = _without_few({split: of & may for split, of in kept.items()}, wanted, offers, cell)
    return kept


def _without_few(
    kept: dict[str, set[str]], wanted: Splits, offers: Mapping[str, Offer], cell: int
) -> dict[str, set[str]]:
    """What is told of, with a few more training patients left out of it where there would be one or two of
    whom something isn't told: an update says how many cases it was of, and the flow how many all splits have.
    """
    for places in ([TRAIN], list(wanted)) if TRAIN in wanted else ():
        told = {case.id for split in places for name in kept[split] for case in offers[split][name]}
        left = {case.patient for split in places for case in wanted[split] if case.id not in told}
        if 0 < len(left) < cell:
            more = [name for name in sorted(kept[TRAIN]) if _patient(name) not in left]
            kept = {**kept, TRAIN: kept[TRAIN] - set(more[: cell - len(left)])}
    return kept


def _of_split(memory: Memory, split: str, offer: Offer, of: Set[str], cell: int) -> set[str]:
    """The patients of a split that may be told of, beside its subgroups that were; none in the rare case that
    these together would cut off a small group.
    """
    before, groups = memory.told(split), memory.groups(split)
    classes = {name: kinds_of(offer[name]) for name in of}
    kept = tellable(classes, before, cell, list(groups.values()))
    if not groups or kept in before:
        return kept
    sets = [*before, *(one for family in groups.values() for one in family), kept]
    return set() if isolates(sets, cell) else kept


def _offer(memory: Memory, split: str, cases: Sequence[Case]) -> Offer:
    """Each patient by those of its cases that it may be told of by; of a split that was wanted before, what
    was told then.
    """
    wanted = by_name(cases)
    if (answer := memory.answer(split, digest_of(wanted))) is not None:
        of = {_patient(name): own for name, own in wanted.items()}
        return {name: _of_these(of[_patient(name)], memory.cases.get(name)) for name in answer}
    told, offer = memory.names(), Offer()
    for name, own in wanted.items():
        before = told.get(_patient(name), {})
        if chosen := own if name in before else _addable(own, list(before.values())):
            offer |= by_name(chosen)
    return offer


def _of_these(cases: list[Case], images: frozenset[Image] | None) -> list[Case]:
    return [case for case in cases if images is None or image_of(case) in images]


def _addable(own: list[Case], before: Sequence[frozenset[Image]]) -> list[Case]:
    """These cases of a patient where no image of them was told of, else those of an earlier answer if all are
    there as they were, or none; none too where what was told before isn't known any more.
    """
    if not all(before):
        return []
    images, known = images_of(own), {image.id for one in before for image in one}
    if known.isdisjoint(image.id for image in images):
        return own
    found = max((one for one in before if one <= images), key=len, default=frozenset[Image]())
    return _of_these(own, found)


def image_of(case: Case) -> Image:
    return Image(*(sha256(fact.encode()).hexdigest()[:16] for fact in (case.id, case.content, case.word)))


def by_name(cases: Sequence[Case]) -> Offer:
    """Patient's name -> its cases. The name is the pseudonym and a digest of its cases, their files and
    labels: the same in every study.
    """
    own: dict[str, list[Case]] = {}
    for case in cases:
        own.setdefault(case.patient, []).append(case)
    return {f"{patient}/{_digest((c.id, c.content, c.word) for c in of)}": of for patient, of in own.items()}


def names_of(cases: Sequence[Case]) -> dict[str, str]:
    """Patient -> its name."""
    return {_patient(name): name for name in by_name(cases)}


def images_of(cases: Iterable[Case]) -> frozenset[Image]:
    return frozenset(map(image_of, cases))


def kinds_of(cases: Iterable[Case]) -> set[int]:
    """The classes of cases."""
    return {kind for case in cases for kind in case.kinds}


def _patient(name: str) -> str:
    return name.rpartition("/")[0]


def _digest(facts: Iterable[tuple[str, ...]]) -> str:
    return sha256(repr(sorted(facts)).encode()).hexdigest()[:16]


def digest_of(patients: Iterable[str]) -> str:
    return sha256(repr(sorted(patients)).encode()).hexdigest()


@contextmanager
def opened(catalogue: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """The memory in the site's database; what is read and written then is one transaction."""
    database = sqlite3.connect(catalogue, timeout=30)
    try:
        database.executescript(SCHEMA)
        with database:
            if write:
                database.execute("BEGIN IMMEDIATE")
            yield database
    finally:
        database.close()


def recall(database: sqlite3.Connection) -> Memory:
    sets: dict[str, dict[str, set[str]]] = {}
    for place, told, patient in database.execute("SELECT split, told, patient FROM told"):
        sets.setdefault(place, {}).setdefault(told, set()).add(patient)
    wanted = {
        (place, of): told for place, of, told in database.execute("SELECT split, wanted, told FROM wanted")
    }
    cases: dict[str, set[Image]] = {}
    for patient, *image in database.execute("SELECT patient, image, content, word FROM told_cases"):
        cases.setdefault(patient, set()).add(Image(*image))
    return Memory(sets, wanted, {name: frozenset(of) for name, of in cases.items()})


def note(database: sqlite3.Connection, sets: Iterable[tuple[str, str, Set[str]]]) -> None:
    """Note sets of patients as (place, digest of what was wanted, patients' names)."""
    for place, wanted, patients in sets:
        name = digest_of(patients)
        rows = [(place, name, patient) for patient in sorted(patients)]
        database.executemany("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", rows)
        database.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", (place, wanted, name))


def note_cases(database: sqlite3.Connection, cases: Mapping[str, frozenset[Image]]) -> None:
    rows = [(name, *image) for name, images in cases.items() for image in sorted(images)]
    database.executemany("INSERT OR IGNORE INTO told_cases VALUES (?, ?, ?, ?)", rows)
