"""What must hold between files: UIDs one to one, references that resolve, patients neither merged nor split,
the same names from other processes and batches, no name in common under another key, intervals of dates.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from benchmarks.deidentification.table import read

NAMES = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
DATES = (("StudyDate", "StudyTime"), ("AcquisitionDate", "AcquisitionTime"))


@dataclass(frozen=True)
class Linked:
    """Of one file: the patient's number or pseudonym, its issuer, the UIDs, what it refers to, its dates."""

    patient: str
    issuer: str
    uids: dict[str, str]
    refers: tuple[str, ...]
    dates: tuple[datetime | None, ...]


def read_all(folder: Path, paths: list[str]) -> dict[str, Linked]:
    """Path -> Linked, of the files that were written."""
    found = {}
    for path in paths:
        dataset = read(folder / path) if (folder / path).is_file() else None
        if dataset is not None:
            found[path] = _linked(dataset)
    return found


def _linked(dataset: Dataset) -> Linked:
    items = dataset.get("ReferencedInstanceSequence") or []
    refers = tuple(str(item.get("ReferencedSOPInstanceUID", "")) for item in items)
    uids = {name: str(dataset.get(name, "")) for name in NAMES}
    moments = tuple(_moment(dataset.get(day), dataset.get(time)) for day, time in DATES)
    issuer = str(dataset.get("IssuerOfPatientID", ""))
    return Linked(str(dataset.get("PatientID", "")), issuer, uids, refers, moments)


def _moment(day: Any, time: Any) -> datetime | None:
    """A date with its time of day; midnight where that is gone, None without a date."""
    for text, form in ((f"{day}{str(time)[:6]}", "%Y%m%d%H%M%S"), (str(day), "%Y%m%d")):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def patients(key: dict[str, Any], before: dict[str, Linked], after: dict[str, Linked]) -> str:
    """'1:1', 'merged', 'split' or 'blank'.

    A number is unique within its issuer (PS3.3 C.7.1.1), so that files of one number and two issuers may be
    told apart. The corpus plants an issuer in some files.
    """
    real, false = defaultdict(set), defaultdict(set)
    for path, one in after.items():
        real[key["files"][path]["patient"], before[path].issuer].add(one.patient)
        false[one.patient].add(key["files"][path]["patient"])
    if set(false) <= {""}:
        return "blank"
    if any(len(found) > 1 for found in false.values()):
        return "merged"
    return "split" if any(len(found) > 1 for found in real.values()) else "1:1"


def uids(before: dict[str, Linked], after: dict[str, Linked]) -> float:
    """Percent of UIDs (object, series, study, frame of reference) mapped one to one and changed."""
    forth, back = defaultdict(set), defaultdict(set)
    for path, one in after.items():
        for name in NAMES:
            forth[before[path].uids[name]].add(one.uids[name])
            back[one.uids[name]].add(before[path].uids[name])
    right = [
        len(new) == 1 and all(len(back[uid]) == 1 and uid and uid != old for uid in new)
        for old, new in forth.items()
    ]
    return 100 * sum(right) / max(1, len(right))


def references(key: dict[str, Any], after: dict[str, Linked]) -> tuple[int, int, int]:
    """(resolving, dropped, dangling) references to objects that are in the output."""
    by_uid = {key["files"][path]["uid"]: one.uids["SOPInstanceUID"] for path, one in after.items()}
    counts = [0, 0, 0]
    for path, one in after.items():
        wanted = key["files"][path]["refers"]
        if wanted in by_uid:
            counts[0 if by_uid[wanted] in one.refers else 1 if not any(one.refers) else 2] += 1
    return counts[0], counts[1], counts[2]


def intervals(
    before: dict[str, Linked], after: dict[str, Linked], key: dict[str, Any]
) -> tuple[int, int, int]:
    """(kept, lost, unshifted) over patients: one offset for all of a patient's dates that are left, never
    nought; dates of one moment (dummies) keep no interval. Whole days count where the time of day is gone.
    """
    moves: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    for path, one in after.items():
        for old, new in zip(before[path].dates, one.dates, strict=True):
            if old is not None and new is not None:
                moves[key["files"][path]["patient"]].append((old, new))
    kept = same = 0
    for found in moves.values():
        offsets = {_offset(old, new) for old, new in found}
        same += timedelta(0) in offsets
        kept += len(offsets) == 1 and len(found) > 1 and timedelta(0) not in offsets
    patients = len({key["files"][path]["patient"] for path in after})
    return kept, patients - kept - same, same


def _offset(old: datetime, new: datetime) -> timedelta:
    is_day_only = new.time() == time() and old.time() != time()
    return timedelta(days=(new.date() - old.date()).days) if is_day_only else new - old


def agree(one: dict[str, Linked], two: dict[str, Linked]) -> bool:
    """Whether two runs gave the same names to the files that both wrote."""
    return all(
        one[path].uids == two[path].uids and one[path].patient == two[path].patient
        for path in one.keys() & two.keys()
    )


def in_common(one: dict[str, Linked], two: dict[str, Linked]) -> int:
    """How many pseudonyms (patients and UIDs) two runs with different keys share."""
    return len(_pseudonyms(one) & _pseudonyms(two))


def _pseudonyms(found: dict[str, Linked]) -> set[str]:
    return {name for one in found.values() for name in (one.patient, *one.uids.values()) if name}
