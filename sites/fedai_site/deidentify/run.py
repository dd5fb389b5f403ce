"""`fedai site deid run`: a folder of DICOM in, a folder of clean DICOM and its evidence out.

Three folders: IN is only read. OUT holds clean files and `evidence.jsonl`, nothing else. PRIVATE (mode 0700)
holds what must stay at the hospital: the key, if none is given, which source became what, pictures for the
review. A rerun continues: what has the same bytes as then, was cleaned under the same settings and is still
there as written (all by hashes) isn't done again. The result doesn't depend on the order or the number of
processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from pathlib import Path

from fedai.errors import ConfigError
from fedai_site.deidentify import engines, mixture, volumes
from fedai_site.deidentify.objects import Settings, deidentifier
from fedai_site.deidentify.output import (
    EVIDENCE,
    PARTS,
    Job,
    Outcome,
    as_data_error,
    as_it_lies,
    clean_file,
    hash_of,
    is_intact,
    settle,
    withdraw,
)
from fedai_site.deidentify.pseudonyms import create_secret
from fedai_site.deidentify.state import ALREADY, DUPLICATE, HELD, MASK, WRITTEN, State, Written
from fedai_site.deidentify.state import Source as Original
from fedai_site.quarantine import Quarantine, Reason
from fedai_site.sources import Folder, Source

Progress = Callable[[int, int], None]
FILES_FOR_A_PROCESS = 50  # fewer than that aren't worth another process, which imports for seconds
AT_ONCE = 256  # originals that are let go of together
OUTLINES = (Reason.SEGMENTATION, Reason.MASK_WITHOUT_IMAGE, Reason.MASK_MISFIT, Reason.MASK_CONFLICT)
TRIED_AGAIN = frozenset(
    {WRITTEN, DUPLICATE, HELD, Reason.FACE_LEFT, *OUTLINES}
)  # even if they came by themselves
NOT_NEEDED = frozenset({WRITTEN, DUPLICATE, MASK, Reason.SUPERSEDED, Reason.WITHDRAWN})


class AtWork(ConfigError):
    """Another run has the folder; later it is free again."""


@dataclass(frozen=True)
class Ran:
    """What became of a folder: found = written + already + duplicates + the sum of quarantined.

    `reused_uids`: clean files whose SOP Instance UID another patient's file has as well. `restored`: how many
    of the written were made anew because their clean file was gone or no longer what its evidence says.
    `text_blanked`, `faces_removed`: in how many of the written pixels were changed. `split_patients`:
    pseudonyms (with, without an issuer) of one PatientID, which may be one person. `masks`: files whose
    outlines were taken over, in the sum too. `stale`: clean files of
    earlier runs under another key or other settings; their originals weren't in this one.
    """

    found: int
    written: int
    already: int
    duplicates: int
    quarantined: dict[str, int]
    reused_uids: int
    restored: int
    text_blanked: int
    faces_removed: int
    split_patients: tuple[tuple[str, str], ...]
    stale: tuple[str, ...]
    key_id: str
    evidence: Path
    masks: int = 0


def prepare(
    source: Path, out: Path, private: Path | None, settings: Settings, *, restart: bool = False
) -> tuple[Path, Path | None]:
    """(private folder, key file), both made if they have to be.

    Without a key and a vault the private folder's own key is used, and made at the first run. Before anything
    is made raises ConfigError, and RefusedByPolicy for an OUT that holds files under other names or another
    profile, unless it is to `restart`.
    """
    private = private or out.with_name(f"{out.name}.private")
    key = settings.key or (private / "pseudonym.key" if settings.vault is None else None)
    _check_folders(source, out, private)
    replace(settings, key=key).check()
    if not settings.faces and not settings.board_decision.strip():
        hint = "--board-decision NUMBER"
        raise ConfigError("faces stay only with the review board's decision number", hint=hint)
    mixture.check(out, private, replace(settings, key=key), restart=restart)
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    if key is not None and not key.exists():
        create_secret(key)
    return private, key


def _is_inside(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def run(
    job: Job,
    *,
    engine: str = "processes",
    processes: int | None = None,
    progress: Progress | None = None,
    restart: bool = False,
    source: Source | None = None,
    last: Callable[[State], None] = lambda state: None,
) -> Ran:
    """Clean every file of a source, else of the job's folder; one file's fault only quarantines that file.

    No list of the files is kept in memory. A file is known by its absolute path, however it was given.
    `restart`: first take back all clean files of earlier runs. `last` sees what is written, at the end.

    Raises ConfigError for wrong settings, DataError when the disk is full.
    """
    deidentifier(job.settings)
    job = replace(job, source=job.source.resolve(), out=job.out.resolve(), private=job.private.resolve())
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        with State(job.private) as state, alone(job.private, job.out):
            if restart:
                _start_over(job, state)
            state.note_settings(job.fingerprint, job.facts)
            state.begin()
            if job.newest:
                state.forget_missing()
            decided = replace(job, decisions=state.decisions())
            ran = _run(decided, state, source or _folder(job), engine, processes, progress, last)
            state.begin()
            return ran
    except (OSError, sqlite3.OperationalError) as error:
        raise as_data_error(error) from error


@contextmanager
def alone(private: Path, out: Path) -> Iterator[None]:
    """One run at a time on a private folder; nothing half-written stays in the output."""
    with (private / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AtWork("another run is at work there", where=str(private)) from None
        shutil.rmtree(out / PARTS, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(out / PARTS, ignore_errors=True)


def _start_over(job: Job, state: State) -> None:
    """Nothing of earlier runs stays in the output. A reviewer's decisions do."""
    (job.out / EVIDENCE).unlink(missing_ok=True)
    for written in list(state.objects()):
        withdraw(job, state, written.path)
    state.forget_sources()
    shutil.rmtree(job.private / "held", ignore_errors=True)
    for folder in sorted((path for path in job.out.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _folder(job: Job) -> Folder:
    return Folder(job.source, tuple(folder.resolve() for folder in (job.private, job.out, *job.skip)))


def _run(
    job: Job,
    state: State,
    source: Source,
    engine: str,
    processes: int | None,
    progress: Progress | None,
    last: Callable[[State], None],
) -> Ran:
    fingerprint = job.fingerprint
    known = source.count()
    likely = max(1, known // FILES_FOR_A_PROCESS) if known else os.cpu_count() or 1
    look = _Look(job, state, source, known, progress)
    work = partial(clean_file, job, fingerprint)
    workers = processes or min(os.cpu_count() or 1, likely)
    for paths in (source.paths(), look.again):
        waiting = look.waiting(paths, fingerprint)
        for path, outcome in engines.each(work, waiting, engine=engine, processes=workers):
            _note(state, job, path, outcome, fingerprint)
            look.done(path)
    volumes.release(job, state, fingerprint)
    if job.unique:
        _withdraw_reused(state, job)
    last(state)
    look.release()
    write_evidence(state, job.out)
    return _ran(state, job, len(look.damaged))


def _check_folders(source: Path, out: Path, private: Path) -> None:
    if not source.exists():
        raise ConfigError("there is no such file or folder", where=str(source))
    for inner, outer in permutations((source, out, private), 2):
        if _is_inside(inner, outer):
            raise ConfigError(f"{inner} is inside {outer}", hint="choose folders apart from each other")


@dataclass
class _Look:
    """A run's way through its source: what is to be done, what is done, what can be let go of."""

    job: Job
    state: State
    source: Source
    known: int
    progress: Progress | None
    number: int = 0
    damaged: set[str] = field(default_factory=set)
    settled: list[Path] = field(default_factory=list)
    at_work: set[Path] = field(default_factory=set)
    again: set[Path] = field(default_factory=set)

    def waiting(self, paths: Iterable[Path], fingerprint: str) -> Iterator[Path]:
        """The files that have to be worked on; what is done already is counted on the way.

        One that comes while a worker has it is to be looked at `again`, at the end.
        """
        for path in paths:
            if path in self.at_work:
                self.again.add(path)
                continue
            if self.job.newest and not path.exists() and self.state.source(path):
                continue  # it came twice, and was let go of
            is_done = _is_done(self.state, self.job, path, fingerprint, self.damaged)
            is_new = self.state.look_at(path, is_done=is_done)
            if not is_new and not self.job.newest:
                continue
            if is_done:
                self.done(path)
            else:
                self.at_work.add(path)
                yield path

    def done(self, path: Path) -> None:
        """One more is as it should be, or in quarantine."""
        self.number += 1
        self.at_work.discard(path)
        self.settled.append(path)
        if len(self.settled) >= AT_ONCE:
            self.release()
        if self.progress:
            self.progress(self.number, max(self.known, self.number) if self.known else 0)

    def release(self) -> None:
        """Let go of the originals that aren't needed any more."""
        ends = [end for path in self.settled if (end := self.state.source(path))]
        going = [(end.path, end.mtime_ns) for end in ends if _is_not_needed(self.state, end)]
        self.settled.clear()
        if going:
            self.source.release(going)


def _is_not_needed(state: State, original: Original) -> bool:
    """Whether it may go where it isn't the archive's own: an original slice of a head is needed again when
    more of its series comes.
    """
    written = state.written(original.object) if original.object else None
    return original.state in NOT_NEEDED and not (written and json.loads(written.evidence).get("face"))


def _is_done(state: State, job: Job, path: Path, fingerprint: str, damaged: set[str]) -> bool:
    """Whether nothing has to be done, by both files' hashes. Notes what isn't as it was written."""
    original = state.source(path)
    if original is None or original.settings != fingerprint:
        return False
    if job.newest and original.state not in TRIED_AGAIN:
        return _is_as_it_came(original) and original.input_sha256 not in job.decisions
    written = state.written(original.object)
    if written is None or not _is_settled(original, path):
        return False
    if written.path not in damaged and is_intact(job, written):
        if job.newest:
            state.note(as_it_lies(original))  # it may have come again, and is the newest then
        return True
    damaged.add(written.path)
    return False


def _is_as_it_came(original: Original) -> bool:
    try:
        return as_it_lies(original) == original
    except Quarantine:
        return False


def _is_settled(original: Original, path: Path) -> bool:
    """Whether these very bytes were cleaned. Size and time prove nothing."""
    return original.state in (WRITTEN, DUPLICATE) and hash_of(path) == original.input_sha256


def _note(state: State, job: Job, path: Path, outcome: Outcome | engines.Lost, fingerprint: str) -> None:
    if isinstance(outcome, engines.Lost):
        detail = "its processing ended the process"
        fate = Original(path, 0, 0, fingerprint, str(Reason.UNREADABLE), detail)
        with suppress(Quarantine):
            fate = as_it_lies(fate)
        outcome = Outcome(fate)
    if outcome.patient:
        state.note_patient(outcome.patient)
    _drop_before(state, job, outcome)
    settle(job, state, outcome)


def _drop_before(state: State, job: Job, outcome: Outcome) -> None:
    """What an earlier run wrote for this file under other settings goes, if nothing else stands for it."""
    source = outcome.source
    before = state.source(source.path)
    if before is None or not before.object or before.object == source.object:
        return
    if before.state == WRITTEN and _is_another(state, before, outcome):
        return  # the folder is filled anew, as a drive or a drop folder is: what came before stays
    if before.state == HELD:
        (job.private / before.object).unlink(missing_ok=True)
    elif all(other.path == source.path for other in state.sources_of(before.object)):
        withdraw(job, state, before.object)


def _is_another(state: State, before: Original, outcome: Outcome) -> bool:
    """Whether another object lies now where one was: other bytes, another SOP Instance UID."""
    there, new = state.written(before.object), outcome.written
    now = outcome.source.input_sha256
    is_same = there is not None and new is not None and there.instance == new.instance
    return bool(now) and before.input_sha256 != now and not is_same


def _withdraw_reused(state: State, job: Job) -> None:
    """A SOP Instance UID that several patients claim: none of its objects stays."""
    for name in state.instances_of_several_patients():
        for source in state.sources_of(name):
            state.note(replace(source, state=str(Reason.UID_REUSED), object=""))
        withdraw(job, state, name)


def write_evidence(state: State, out: Path) -> None:
    """The evidence of all clean files in the output folder's one file."""
    part = out / PARTS / EVIDENCE
    part.parent.mkdir(exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in state.evidence())
    part.replace(out / EVIDENCE)


def _ran(state: State, job: Job, restored: int) -> Ran:
    key_id = deidentifier(job.settings).pseudonyms.key_id
    ends: Counter[str] = Counter()
    for end, is_done, number in state.ends():
        ends[ALREADY if end == WRITTEN and is_done else end] += number
    changed: Counter[str] = Counter()
    for written in state.written_now():
        changed.update(_changes(written))
    fine = (WRITTEN, ALREADY, DUPLICATE, MASK)
    quarantined = {name: n for name, n in sorted(ends.items()) if name not in fine}
    return Ran(
        found=ends.total(),
        written=ends[WRITTEN],
        already=ends[ALREADY],
        duplicates=ends[DUPLICATE],
        quarantined=quarantined,
        reused_uids=len(state.instances_of_several_patients()),
        restored=restored,
        text_blanked=changed["text"],
        faces_removed=changed["face"],
        split_patients=tuple(state.split_patients()),
        stale=tuple(state.stale(key_id, job.fingerprint)),
        key_id=key_id,
        evidence=job.out / EVIDENCE,
        masks=ends[MASK],
    )


def _changes(written: Written) -> list[str]:
    """What was changed in a clean file's pixels: text, face."""
    evidence = json.loads(written.evidence)
    pixels, face = evidence["pixels"] or {}, evidence["face"] or {}
    blanked = ["text"] if pixels.get("frames_changed") else []
    return blanked + (["face"] if face.get("outcome") == "removed" else [])
