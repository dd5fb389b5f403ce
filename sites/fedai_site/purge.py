"""`fedai site purge`: a study is over here; what was kept for it is deleted, searched for and put down.

Deleted are what was asked for, the answers, scores and states of its runs, arrays that were prepared for it
alone, the snapshot of its cohort and its splits. What stays, since patients and the hospital have a right to
it: the approvals that were given, what was spent of them, which runs used whom, the ledger, and bytes that
left, while site.yaml says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedai.errors import ConfigError, DataError
from fedai.study import Study, parse_study
from fedai_site import approvals, cache, receipts
from fedai_site.catalogue import Catalogue
from fedai_site.home import SiteHome
from fedai_site.traces import UNFINISHED, Traces, files_under, find

KEPT = ["approvals given", "what was spent", "which runs used whom", "the ledger", "bytes that left"]


@dataclass(frozen=True)
class Leftovers:
    """Of all versions of a study: files, the folders they lie in, plans of splits."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    plans: tuple[str, ...]


def purge(home: SiteHome, study: Study) -> Path:
    """Delete what is kept for all versions of the study, and give a receipt. The agent must not be running.

    Raises ConfigError while a version is approved, DataError where something is left.
    """
    versions = [study, *(old for _, old in approvals.approved_before(home.approvals, study.name))]
    versions = list({one.sha256: one for one in versions}.values())
    others = [parse_study(kept.study) for kept, _ in approvals.standing(home.approvals)]
    if any(one.name == study.name for one in others):
        raise ConfigError(f"{study.name} is approved", hint="fedai site revoke HOME STUDY, for each version")
    found = _leftovers(home, study, versions, others)
    traces = _traces(home, found.files)
    unfinished = home.folder / UNFINISHED / f"purge-{study.name}.json"
    traces.add_kept(unfinished)
    traces.keep(unfinished)
    for folder in found.folders:
        shutil.rmtree(folder)
    for path in found.files:
        path.unlink(missing_ok=True)
    with Catalogue(home.catalogue) as catalogue:
        patients = catalogue.forget_plans(found.plans)
        catalogue.compact()
    searched = _search(home, found, traces)
    unfinished.unlink()
    facts = {
        "receipt": "purge of a study",
        "site": home.settings.name,
        "study": study.name,
        "versions": sorted(one.sha256 for one in versions),
        "purged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "deleted": {"files": len(found.files), "splits_of_patients": patients},
        "searched": searched,
        "kept": KEPT,
    }
    home.receipts.mkdir(exist_ok=True, mode=0o700)
    path = home.receipts / f"purge-{study.name}-{datetime.now(UTC):%Y-%m-%dT%H%M%S%z}.json"
    path.write_bytes(receipts.sign(home.folder / "keys", facts))
    return path


def _leftovers(home: SiteHome, study: Study, versions: Sequence[Study], others: Sequence[Study]) -> Leftovers:
    in_use = {cache.folder_of(home.folder, one.preprocessing) for one in others}
    folders = set(_of_runs(home, study, {one.sha256 for one in versions}, {one.sha256 for one in others}))
    files: set[Path] = set()
    for one in versions:
        files |= set((home.folder / "requests").glob(f"*-{one.sha256[:12]}.json*"))
        folders |= {cache.folder_of(home.folder, one.preprocessing)} - in_use
        files.add(home.approvals / f"{one.sha256}.cohort")
    there = {path for folder in folders for path in files_under(folder)}
    files = there | {path for path in files if path.exists()}
    plans = {one.split_plan for one in versions}
    return Leftovers(tuple(sorted(files)), tuple(sorted(filter(Path.exists, folders))), tuple(sorted(plans)))


def _of_runs(home: SiteHome, study: Study, own: Set[str], others: Set[str]) -> Iterator[Path]:
    """`runs/NAME/ID-HASH` of these versions, and of others that no approval tells of, by the name of the
    run; never of a study that is approved.
    """
    for folder in home.runs.glob("*/*-" + 64 * "?"):
        of = folder.name.rpartition("-")[2]
        is_named = re.fullmatch(re.escape(study.name) + "-[0-9]+", folder.parent.name) is not None
        if of in own or (is_named and of not in others):
            yield folder


def _traces(home: SiteHome, files: Iterable[Path]) -> Traces:
    """Not of snapshots and requests: another study may have the very same cohort, a person a copy of the
    study.
    """
    traces = Traces()
    places = (home.runs, home.folder / cache.CACHE)
    for path in (one for one in files if any(map(one.is_relative_to, places))):
        traces.add(path.read_bytes())
        if path.suffix == ".npy":
            traces.add(np.load(path, allow_pickle=False).tobytes())
    return traces


def _search(home: SiteHome, found: Leftovers, traces: Traces) -> dict[str, int]:
    left, number, size = find(traces, _searched(home))
    gone = [path for path in found.files if path.exists()]
    if left or gone:
        raise DataError(
            f"{len({*left, *gone})} files still hold what was kept for the study",
            where=", ".join(str(path.relative_to(home.folder)) for path in sorted({*left, *gone})[:5]),
            hint="delete them and purge again; there is no receipt yet",
        )
    return {"files": number, "bytes": size, "left": 0}


def _searched(home: SiteHome) -> Iterator[Path]:
    """All files but the bytes that left, arrays of other settings, which may be the same images, and what
    other studies' runs are kept by, which may be the same answers.
    """
    others = (
        home.sent,
        home.folder / cache.CACHE,
        home.folder / UNFINISHED,
        *home.runs.glob("*/*-" + 64 * "?"),
    )
    for path in files_under(home.folder):
        if not any(path.is_relative_to(folder) for folder in others):
            yield path
