"""`fedai site consent withdraw`: out of use at once, off the disk, searched for, and put down in a receipt.

Kept are the pseudonym (so that originals are refused, and a patient who comes back has the same split), the
split, and which runs used how many of the patient's cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedai.errors import ConfigError, DataError
from fedai_site import cache, influence, intake, masks, receipts
from fedai_site.adding import PRIVATE, recatalogue
from fedai_site.catalogue import Catalogue, Record
from fedai_site.consents import Consents, Withdrawal
from fedai_site.deidentify.erasing import Belongings, Who, belongings, erase, names_in
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.deidentify.run import AtWork, alone
from fedai_site.deidentify.state import State
from fedai_site.home import CLEAN, SiteHome
from fedai_site.inbox import INBOX, waiting
from fedai_site.replies import KEPT_REPLIES, SCORES
from fedai_site.traces import UNFINISHED, Traces, files_under, find

UNRECORDED = "runs/*/*"


@dataclass(frozen=True)
class Remains:
    """What there is of a patient before it is deleted, and the traces to search for afterwards."""

    found: Belongings
    records: tuple[Record, ...]
    arrays: tuple[Path, ...]
    masks: tuple[Path, ...]
    of_runs: tuple[Path, ...]
    traces: Traces
    unknown: int  # originals in the inbox that can't be read


def withdraw(home: SiteHome, patients: Sequence[tuple[str, str]]) -> list[Path]:
    """Withdraw patients, given as (pseudonym, keyed PatientID), and give a receipt for each: for who had
    withdrawn before and of whom nothing more is found, that of the deletion.

    None of their cases is in any batch that is drawn after the first step, which can't fail half-way; the
    rest may be repeated. Raises ConfigError while data are added, DataError where something is left.
    """
    with Consents(home.folder) as consents:
        consents.withdraw(patients)
    names = Pseudonyms(load_secret(home.pseudonym_key))
    try:
        return [_delete(home, names, one) for one in _wanted(home, patients)]
    except ConfigError as error:
        raise ConfigError(
            f"withdrawn and out of use from now on, but not deleted yet: {error.message}",
            where=error.where, hint="run `fedai site consent withdraw` again when `add-data` has ended",
        ) from None  # fmt: skip


def catch_up(home: SiteHome) -> None:
    """After an `add-data` that was cut off: what it noted is catalogued, and clean files that it didn't get
    to note are deleted, since nobody can tell whose they are; the next one makes them again. Nothing while
    one runs.
    """
    out, private = home.folder / CLEAN, home.folder / PRIVATE
    if not private.is_dir():
        return
    with (
        suppress(AtWork),
        State(private) as state,
        alone(private, out),
        Catalogue(home.catalogue) as catalogue,
    ):
        noted = {written.path for written in state.objects()}
        for path in files_under(out):
            if path.suffix == ".dcm" and path.relative_to(out).as_posix() not in noted:
                path.unlink()
        recatalogue(catalogue, state)


def _wanted(home: SiteHome, patients: Sequence[tuple[str, str]]) -> list[Withdrawal]:
    with Consents(home.folder) as consents:
        in_force = {(one.patient, one.patient_key): one for one in consents.withdrawals()}
    return [in_force[pair] for pair in patients]


def _delete(home: SiteHome, names: Pseudonyms, withdrawal: Withdrawal) -> Path:
    patients = {withdrawal.patient or withdrawal.patient_key}
    remains = _look(home, patients, partial(intake.names_of, names))
    unfinished = home.folder / UNFINISHED / f"withdrawal-{withdrawal.patient or withdrawal.patient_key}.json"
    remains.traces.add_kept(unfinished)
    remains.traces.keep(unfinished)
    out, private = home.folder / CLEAN, home.folder / PRIVATE
    erase(out, private, patients, remains.found, lambda path: names.label_key("path", str(path)))
    masks.forget(home.folder, home.catalogue, patients)
    cache.forget(home.folder, patients)
    for path in remains.of_runs:
        path.unlink(missing_ok=True)
    _forget_records(home, remains.records)
    blank(home.log, [withdrawal.patient, *_texts(remains)])
    searched = _search(home, remains, patients)
    unfinished.unlink()
    return _receipt(home, withdrawal, remains, *searched)


def _look(home: SiteHome, patients: Set[str], who: Who) -> Remains:
    found = belongings(home.folder / CLEAN, home.folder / PRIVATE, patients, who)
    with Catalogue(home.catalogue) as catalogue:
        records = tuple(catalogue.of_patients(patients))
    arrays = tuple(cache.arrays_of(home.folder, patients))
    outlined = tuple(masks.files_of(home.folder, patients))
    of_runs = tuple(path for patient in patients for path in _of_runs(home, patient))
    arrived, unknown = _arrived(home, patients, who)
    found = replace(found, files=tuple(sorted({*found.files, *arrived})))
    remains = Remains(found, records, arrays, outlined, of_runs, Traces(), unknown)
    for path in (*found.files, *arrays):
        _remember(remains.traces, path)
    for path in of_runs:
        _remember(remains.traces, path, is_answer=True)
    for path in outlined:
        remains.traces.add_labels(masks.read_labels(path).tobytes())
    for text in _texts(remains):
        remains.traces.add_text(text)
    for kind, deleted in _kinds(home, remains).items():
        remains.traces.note(kind, deleted)
    return remains


def _kinds(home: SiteHome, remains: Remains) -> dict[str, Sequence[object]]:
    """What is deleted, as a receipt counts it."""
    clean = [path for path in remains.found.files if path.is_relative_to(home.folder / CLEAN)]
    return {
        "clean_files": clean,
        "waiting_files_and_pictures": sorted(set(remains.found.files) - set(clean)),
        "masks": remains.masks,
        "cached_arrays": remains.arrays,
        "scores_and_answers_of_runs": remains.of_runs,
        "records": [record.id for record in remains.records],
    }


def _remember(traces: Traces, path: Path, *, is_answer: bool = False) -> None:
    """What to look for of a file; a cached mask is told from a cached image by its few labels."""
    array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else None
    if array is not None and array.dtype == np.uint8 and array.size and array.max() <= masks.MOST_LABELS:
        traces.add_labels(array.tobytes())
        return
    traces.add(path.read_bytes(), is_answer=is_answer)
    if array is not None:
        traces.add(array.tobytes(), is_answer=is_answer)


def _arrived(home: SiteHome, patients: Set[str], who: Who) -> tuple[list[Path], int]:
    """Originals of theirs in the inbox, and how many there are of whom nobody can tell."""
    mine, unknown = [], 0
    for path in waiting(home.folder / INBOX):
        names = names_in(path, who)
        mine += [path] if names & patients else []
        unknown += not names
    return mine, unknown


def _texts(remains: Remains) -> list[str]:
    """UIDs of the clean objects, hashes of files."""
    found = {record.id for record in remains.records} | {one.instance for one in remains.found.written}
    found |= {record.sha256 for record in remains.records}
    found |= {source.input_sha256 for source in remains.found.sources}
    return sorted(found - {""})


def _of_runs(home: SiteHome, patient: str) -> list[Path]:
    """Scores and kept answers of runs that used the patient, or of which it isn't known whom they used."""
    used: dict[tuple[str, str, str], set[str]] = {}
    for use in influence.uses_of(home.catalogue, patient):
        used.setdefault((use.run, use.run_id, use.study), set()).add(use.task)
    known = influence.known_runs(home.catalogue)
    found: list[Path] = []
    for folder in sorted(home.folder.glob(UNRECORDED)):
        run_id, _, study = folder.name.partition("-")
        run = (folder.parent.name, run_id, study)
        tasks = used.get(run, set()) if run in known else {"score", "train"}
        found += folder.glob(SCORES) if tasks & {"score", "place"} else ()
        found += folder.glob(KEPT_REPLIES) if tasks else ()
    return sorted(found)


def _forget_records(home: SiteHome, records: Sequence[Record]) -> None:
    with Catalogue(home.catalogue) as catalogue, State(home.folder / PRIVATE) as state:
        catalogue.withdraw_images(records)
        recatalogue(catalogue, state)
        catalogue.forget_labels(records)
        catalogue.compact()


def blank(log: Path, texts: Iterable[str]) -> None:
    """Write x over texts in a log in place: the agent may be adding to its end meanwhile."""
    if not log.exists():
        return
    content = log.read_bytes()
    with log.open("r+b") as file:
        for raw in (text.encode() for text in texts if text):
            at = content.find(raw)
            while at >= 0:
                file.seek(at)
                file.write(b"x" * len(raw))
                at = content.find(raw, at + len(raw))


def _search(home: SiteHome, remains: Remains, patients: Set[str]) -> tuple[dict[str, int], list[Path]]:
    """What was searched, and files of others with the same content. Raises DataError for any other find."""
    files_here = (path for path in files_under(home.folder) if path.parent.name != UNFINISHED)
    found, files, size = find(remains.traces, files_here)
    gone = [path for path in _files(remains) if path.exists()]
    others = _files_of_others(home)
    same = [path for path in found if _belongs(path, home, others)]
    same += _answers_without(home, remains, patients, set(found) - set(same))
    left = sorted({*gone, *found} - set(same))
    if left:
        raise DataError(
            f"withdrawn and out of use, but {len(left)} files still hold data of the patient",
            where=", ".join(str(path.relative_to(home.folder)) for path in left[:5]),
            hint="delete them, or run `fedai site consent withdraw` again; there is no receipt yet",
        )
    return {"files": files, "bytes": size, "left": 0}, same


def _answers_without(home: SiteHome, remains: Remains, patients: Set[str], found: Set[Path]) -> list[Path]:
    """Of these, answers and scores of runs that are on record and didn't use the patient, where all that was
    found in them is in answers alone: a study done again with the same cases gives the same bytes.
    """
    known = {(run, f"{number}-{study}") for run, number, study in influence.known_runs(home.catalogue)}
    folders = [f for f in home.folder.glob(UNRECORDED) if (f.parent.name, f.name) in known]
    kept = {path for folder in folders for glob in (SCORES, KEPT_REPLIES) for path in folder.glob(glob)}
    of_patient = {path for patient in patients for path in _of_runs(home, patient)}
    asked = sorted(found & kept - of_patient)
    still, _, _ = find(remains.traces.without_answers(), asked)
    return [path for path in asked if path not in still]


def _files(remains: Remains) -> tuple[Path, ...]:
    return (*remains.found.files, *remains.arrays, *remains.masks, *remains.of_runs)


def _files_of_others(home: SiteHome) -> dict[Path, str]:
    with Consents(home.folder) as consents:
        patients = consents.patients()
    with Catalogue(home.catalogue) as catalogue:
        records = catalogue.of_patients(patients)
    return {home.folder / record.path: record.patient for record in records}


def _belongs(path: Path, home: SiteHome, others: dict[Path, str]) -> bool:
    """Whether it is another patient's clean file, mask or cached array, which holds the same content."""
    if path in others:
        return True
    is_cached = any(path.is_relative_to(home.folder / name) for name in (cache.CACHE, masks.MASKS))
    return is_cached and path.parent.name in set(others.values())


def _receipt(
    home: SiteHome, withdrawal: Withdrawal, remains: Remains, searched: dict[str, int], same: list[Path]
) -> Path:
    before = home.receipts / withdrawal.receipt
    deleted = {kind: len(remains.traces.deleted[kind]) for kind in _kinds(home, remains)}
    if before.is_file() and not any(deleted.values()):
        return before
    uses = influence.uses_of(home.catalogue, withdrawal.patient)
    facts: dict[str, Any] = {
        "receipt": "withdrawal of consent",
        "site": home.settings.name,
        "patient": withdrawal.patient or f"PatientID with the key {withdrawal.patient_key}",
        "withdrawn_at": withdrawal.at,
        "deleted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "deleted": deleted,
        "searched": searched,
        "without_recognisable_content": remains.traces.plain,
        "same_content_in_files_of_others": len(same),
        "pictures_of_unknown_patients": remains.found.unknown,
        "originals_of_unknown_patients": remains.unknown,
        "kept": ["the pseudonym, to refuse originals", "the split", "which runs used how many cases",
                 "keyed hashes of the images' pixels, so that no other patient's copy is used"],
        "used_in": sorted({f"{use.run} {use.task} {use.round}".strip() for use in uses}),
        "models": influence.NOT_UNLEARNED,
    }  # fmt: skip
    home.receipts.mkdir(exist_ok=True, mode=0o700)
    name = withdrawal.patient or withdrawal.patient_key
    path = home.receipts / f"{name}-{withdrawal.at.replace(':', '')}.json"
    times = 1
    while path.exists():  # a receipt is never written over
        times += 1
        path = path.with_name(f"{name}-{withdrawal.at.replace(':', '')}-{times}.json")
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(receipts.sign(home.folder / "keys", facts))
    partial.replace(path)
    with Consents(home.folder) as consents:
        consents.close_with(withdrawal, path.name)
    return path
