"""From one source file to its clean file on disk, in whatever process.

Clean files appear whole or not at all. Whatever may show a face is put aside in the private folder instead,
see volumes.py.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from fedai.errors import DataError
from fedai_site import archives
from fedai_site.deidentify import reading
from fedai_site.deidentify.objects import CleanObject, Settings, clean_dataset, deidentifier, has_release
from fedai_site.deidentify.state import DUPLICATE, HELD, WRITTEN, Patient, Source, State, Written
from fedai_site.quarantine import Quarantine, Reason

PARTS = ".parts"
EVIDENCE = "evidence.jsonl"
MAXIMUM_BYTES = 2 << 30
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
Look = Callable[[Dataset, bytes], Mapping[str, str]]


@dataclass(frozen=True)
class Job:
    """A run over a folder. `keep_names`: clean files lie where their sources lay, under the same names.

    `look` sees each original data set before it is cleaned: it may refuse it (Quarantine), and what it gives
    back is kept with the clean file in the private state; originals are looked at again when `looked`, the
    version of what it keeps, has changed. `skip`: folders whose files are none of the
    export's. `unique`: objects whose SOP Instance UID several patients claim are nobody's and are refused.
    `barred`: pseudonyms of patients who withdrew, or what `look` says of them; their originals are refused.
    `newest`: of several contents of one object the one that came last stands for it (an archive's own).
    """

    source: Path
    out: Path
    private: Path
    settings: Settings
    keep_names: bool = False
    look: Look | None = None
    looked: int = 0
    skip: tuple[Path, ...] = ()
    unique: bool = False
    barred: frozenset[str] = frozenset()
    newest: bool = False
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """All that decides about the result beside the files themselves, as plain data."""
        settings = self.settings
        return {
            **asdict(replace(settings, profile=settings.profile, key=None, vault=None)),
            "profile": settings.profile.model_dump(mode="json"),
            "names": "key" if settings.vault is None else "vault",
            "key": deidentifier(settings).pseudonyms.key_id,
            "keep_names": self.keep_names,
            **({"looked": self.looked} if self.looked else {}),
        }

    @property
    def fingerprint(self) -> str:
        """Of the facts, 16 hex digits."""
        return sha256(json.dumps(self.facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """A worker's answer about one source file."""

    source: Source
    written: Written | None = None
    part: Path | None = None
    patient: Patient | None = None


def clean_file(job: Job, fingerprint: str, path: Path) -> Outcome:
    """In a worker: one source file. Nothing that a file can contain makes this raise."""
    source = Source(path, 0, 0, fingerprint, WRITTEN)
    try:
        source = as_it_lies(source)
        data = archives.read(path, MAXIMUM_BYTES)
        source = replace(source, input_sha256=sha256(data).hexdigest())
        original = reading.parse(data)
        if job.barred and deidentifier(job.settings).patient_of(original) in job.barred:
            raise Quarantine(Reason.WITHDRAWN)
        facts = job.look(original, data) if job.look else {}
        if job.barred.intersection(facts.values()):
            raise Quarantine(Reason.WITHDRAWN)
        clean = clean_dataset(original, data, job.settings, job.decisions.get(source.input_sha256))
        patient = Patient(clean.patient, *deidentifier(job.settings).number(original))
        return replace(_store(job, source, clean, json.dumps(dict(facts), sort_keys=True)), patient=patient)
    except Quarantine as error:
        return Outcome(quarantined(job, source, error))


def as_it_lies(source: Source) -> Source:
    """With the size and the time that its file has now. Raises Quarantine where it isn't there."""
    try:
        size = archives.size_of(source.path)
    except FileNotFoundError:
        raise Quarantine(Reason.MISSING) from None
    except OSError as error:
        raise Quarantine(Reason.UNREADABLE, error.strerror or "input/output error") from None
    return replace(source, bytes=size.bytes, mtime_ns=size.mtime_ns)


def quarantined(job: Job, source: Source, error: Quarantine) -> Source:
    picture = ""
    if error.picture:
        picture = f"pictures/{source.input_sha256}.png"
        (job.private / "pictures").mkdir(exist_ok=True, mode=0o700)
        (job.private / picture).write_bytes(error.picture)
    return replace(source, state=str(error.reason), detail=error.detail, picture=picture)


def _store(job: Job, source: Source, clean: CleanObject, facts: str) -> Outcome:
    name = job_path(job, source.path, clean)
    if not clean.held:
        return give_out(job, source, name, clean, facts)
    aside = f"held/{clean.series}/{clean.evidence.input_sha256}.dcm"
    path = job.private / aside
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(clean.data)
    kept = {"name": name, "evidence": asdict(clean.evidence), "facts": facts, "patient": clean.patient}
    path.with_suffix(".json").write_text(json.dumps(kept), encoding="utf-8")
    return Outcome(replace(source, state=HELD, object=aside))


def job_path(job: Job, path: Path, clean: CleanObject) -> str:
    """Where a clean file lies below the output folder."""
    if job.keep_names:
        kept = path.name if job.source.is_file() else path.relative_to(job.source).as_posix()
        kept = os.fsencode(kept).decode("utf-8", "backslashreplace")
        return f"_{kept}" if kept.split("/")[0] in (EVIDENCE, PARTS) else kept
    return f"{clean.patient}/{clean.study}/{clean.series}/{clean.instance}.dcm"


def give_out(job: Job, source: Source, name: str, clean: CleanObject, facts: str) -> Outcome:
    """Write a clean file aside; `settle` moves it to its name, so that nothing half-written lies there."""
    own = sha256(os.fsencode(source.path)).hexdigest()  # a copy of the same file has a part of its own
    part = job.out / PARTS / f"{source.input_sha256[:32]}-{own[:32]}"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(clean.data)
    evidence = replace(clean.evidence, path=name).line()
    names = (clean.instance, clean.patient, clean.study, clean.series)
    stat = part.stat()
    written = Written(name, *names, stat.st_size, stat.st_mtime_ns, evidence, facts)
    return Outcome(replace(source, state=WRITTEN, object=name), written, part)


def settle(job: Job, state: State, outcome: Outcome) -> None:
    """Put a worker's clean file in its place and remember the outcome. Only one process does this.

    Of several contents under one name the first by `_rank` has it, in whatever order they come; the others
    get their hash added to it, or go to quarantine as a conflict where a job wants each instance once.
    """
    source, written, part = outcome.source, outcome.written, outcome.part
    if written is None or part is None:
        state.note(source)
        return
    there = _rival(job, state, source, written)
    if there and _hash(there) == _hash(written):
        part.unlink()
        state.note(replace(source, state=DUPLICATE))
    elif there and _rank(job, there, _came(state, there)) < _rank(job, written, source.mtime_ns):
        if job.unique:
            part.unlink()
            state.note(in_conflict(job, source))
            return
        other = _renamed(written)
        settle(job, state, Outcome(replace(source, object=other.path), other, part))
    else:
        if there:
            _make_way(job, state, there)
        target = job.out / written.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        state.note(source, written)


def _rank(job: Job, written: Written, came: int) -> tuple[bool, int, str]:
    """What a person has released is first, then what came last where that counts, then the smaller hash."""
    evidence = json.loads(written.evidence)
    is_other = not is_chosen(job, evidence["input_sha256"])
    return is_other, -came if job.newest else 0, evidence["output_sha256"]


def _came(state: State, written: Written) -> int:
    """When the last of the originals of a clean file came, ns."""
    return max((source.mtime_ns for source in state.sources_of(written.path)), default=0)


def is_chosen(job: Job, input_sha256: str) -> bool:
    """Whether a person has said that of several contents of one object this is the right one."""
    return has_release(job.decisions.get(input_sha256), Reason.CONFLICT)


def in_conflict(job: Job, source: Source) -> Source:
    """A file whose object has another content as well, which stands for it."""
    reason = Reason.SUPERSEDED if job.newest else Reason.CONFLICT
    return replace(source, state=str(reason), object="")


def _rival(job: Job, state: State, source: Source, written: Written) -> Written | None:
    """Another source's file of this run that lies under the name already."""
    there = state.written(written.path)
    others = [other for other in state.sources_of(written.path) if other.path != source.path]
    is_current = any((other.state, other.settings) == (WRITTEN, source.settings) for other in others)
    return there if there and is_current and is_intact(job, there) else None


def _make_way(job: Job, state: State, there: Written) -> None:
    """A file whose name another one takes: it gets its hash added, or goes to quarantine."""
    sources = state.sources_of(there.path)
    other = _renamed(there)
    if not job.unique:
        (job.out / there.path).rename(job.out / other.path)
        state.forget_object(there.path)
    for source in sources:
        if job.unique:
            state.note(in_conflict(job, source))
        else:
            state.note(replace(source, object=other.path), other)


def _renamed(written: Written) -> Written:
    path = f"{written.path.removesuffix('.dcm')}-{_hash(written)[:16]}.dcm"
    evidence = json.dumps({**json.loads(written.evidence), "path": path}, sort_keys=True)
    return replace(written, path=path, evidence=evidence)


def _hash(written: Written) -> str:
    return str(json.loads(written.evidence)["output_sha256"])


def is_intact(job: Job, written: Written) -> bool:
    """Whether a clean file's bytes are still those that its evidence speaks of."""
    return hash_of(job.out / written.path) == _hash(written)


def hash_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, '' for one that can't be read."""
    try:
        if archives.archive_of(path):
            return sha256(archives.read(path)).hexdigest()
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (OSError, Quarantine):
        return ""


def as_data_error(error: OSError | sqlite3.OperationalError) -> Exception:
    """A full disk in plain words; any other error as it is."""
    full = error.errno in NO_SPACE if isinstance(error, OSError) else error.sqlite_errorname == "SQLITE_FULL"
    if full:
        return DataError(
            "the disk is full", hint="free some space and run it again: it goes on where it stopped"
        )
    return error


def withdraw(job: Job, state: State, name: str) -> None:
    """Take a clean file back."""
    (job.out / name).unlink(missing_ok=True)
    state.forget_object(name)
