"""Takes patients out of what runs over folders left: clean files, what waits, pictures, what is remembered.

Who a quarantined file is of isn't remembered; its original says it, as long as it lies where it lay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from fedai_site import archives
from fedai_site.deidentify import reading
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.run import alone, write_evidence
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.state import CONCEALED, HELD, MASK, Source, State, Written
from fedai_site.quarantine import Quarantine, Reason

HELD_FOLDER = "held"
Who = Callable[[Dataset], Set[str]]
"""What the patient of an original is known by: the pseudonym, the keyed PatientID."""


@dataclass(frozen=True)
class Belongings:
    """What is of some patients: clean files as remembered, source files, and every file of theirs on disk.

    `unknown`: pictures of quarantined files whose originals are gone, so that nobody can tell whose they are.
    """

    written: tuple[Written, ...]
    sources: tuple[Source, ...]
    files: tuple[Path, ...]
    unknown: int


def belongings(out: Path, private: Path, patients: Set[str], who: Who) -> Belongings:
    """Look them up; quarantined originals are opened for it. Raises ConfigError while a run is at work."""
    with State(private) as state, alone(private, out):
        written = state.of_patients(patients)
        sources = [source for one in written for source in state.sources_of(one.path)]
        files = [path for patient in patients for path in (out / patient).rglob("*") if path.is_file()]
        files += [path for path in (out / one.path for one in written) if path.is_file()]
        files += [path for aside in _held(private, patients) for path in (aside, aside.with_suffix(".dcm"))]
        mine, unknown = _quarantined(state, patients, who)
        files += [private / source.picture for source in mine if source.picture]
    known = {source.path: source for source in (*sources, *mine)}
    there = sorted({path for path in files if path.is_file()})
    return Belongings(tuple(written), tuple(known.values()), tuple(there), unknown)


def _held(private: Path, patients: Set[str]) -> list[Path]:
    """The notes beside clean files of theirs that a run which ended early left waiting."""
    notes = sorted((private / HELD_FOLDER).rglob("*.json"))
    return [note for note in notes if json.loads(note.read_text(encoding="utf-8"))["patient"] in patients]


def _quarantined(state: State, patients: Set[str], who: Who) -> tuple[list[Source], int]:
    """Source files of theirs without a clean file, and how many pictures can't be told apart any more."""
    mine, unknown = [], 0
    for source in state.quarantined() + state.in_state(HELD, MASK):
        if CONCEALED.fullmatch(str(source.path)):
            continue
        names = {source.detail} if source.state == MASK else names_in(source.path, who)
        mine += [source] if names & patients else []
        unknown += not names and bool(source.picture)
    return mine, unknown


def names_in(path: Path, who: Who) -> Set[str]:
    """What the patient of an original is known by, nothing where the file is gone or nobody's."""
    try:
        with silenced():
            return who(reading.parse(archives.read(path)))
    except Quarantine:
        return frozenset()
    except FAULTS:
        return frozenset()


def erase(
    out: Path, private: Path, patients: Set[str], found: Belongings, name: Callable[[Path], str]
) -> None:
    """Delete it all. `name` gives what is remembered in place of an original's path: that it was refused."""
    with State(private) as state, alone(private, out):
        for patient in patients:
            shutil.rmtree(out / patient, ignore_errors=True)
        for path in found.files:
            path.unlink(missing_ok=True)
        for written in found.written:
            state.forget_object(written.path)
        state.forget_patients(patients)
        for source in found.sources:
            state.note(replace(source, state=str(Reason.WITHDRAWN)))
        state.conceal(str(Reason.WITHDRAWN), name)
        state.begin()
        write_evidence(state, out)
        state.compact()
