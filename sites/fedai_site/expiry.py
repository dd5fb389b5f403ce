"""`fedai site purge --expired`: what the policy says is kept too long is deleted, searched for and put down.

Never the ledger, consents, receipts, what a run has asked or spent, or a file that lies elsewhere than in the
home. The agent does it when it starts and once a day.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedai.errors import ConfigError, DataError
from fedai_site import approvals, cache, receipts
from fedai_site.home import CLEAN, DEID, SiteHome
from fedai_site.inbox import INBOX, waiting
from fedai_site.policy import read_policy
from fedai_site.retention import Retention
from fedai_site.sent import DAY_S
from fedai_site.traces import UNFINISHED, Traces, files_under, find

PICTURES = "pictures"  # of the quarantine, below its private folder
RUNS = "*/*-" + 64 * "?"  # runs/NAME/NUMBER-STUDY
KEPT = [
    "the ledger",
    "consents",
    "receipts",
    "what runs asked and spent",
    "clean images",
    "the archive's own",
]
MOST = 5_000  # files at once: what is searched for is kept in memory

log = logging.getLogger("fedai.site.expiry")


@dataclass(frozen=True)
class Due:
    """What is over its time, by the policy's key."""

    files: Mapping[str, tuple[Path, ...]]

    def counts(self) -> dict[str, int]:
        """How many files of each kind."""
        return {kind: len(paths) for kind, paths in self.files.items() if paths}

    def first(self, most: int) -> Due:
        """Of each kind so many at most."""
        return Due({kind: paths[:most] for kind, paths in self.files.items()})

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for paths in self.files.values() for path in paths if path.exists())


def due(home: SiteHome, now: float | None = None) -> Due:
    """What is due now (Unix time); nothing without a policy. Raises ConfigError for a wrong policy.yaml."""
    policy = read_policy(home.rules)
    kept, at = policy.retention if policy else Retention(), time.time() if now is None else now
    found = {
        "originals": _older(_originals(home), kept.originals, at),
        "arrays": _older((home.folder / cache.CACHE).rglob("*.npy"), kept.arrays, at),
        "runs": _of_runs(home, kept.runs, at),
        "sent": _older(home.sent.glob("*.bin"), kept.sent, at),
        "approvals": _ended(home, kept.approvals, at),
    }
    own = partial(_is_inside, home.folder.resolve())
    return Due({kind: tuple(sorted(filter(own, paths))) for kind, paths in found.items()})


def _is_inside(folder: Path, path: Path) -> bool:
    """Whether it is a file of the folder's own: no link, and none above it that leads away."""
    return not path.is_symlink() and path.resolve().is_relative_to(folder)


def _originals(home: SiteHome) -> Iterator[Path]:
    yield from waiting(home.folder / INBOX)
    yield from (home.folder / DEID / PICTURES).glob("*.png")


def _age_days(path: Path, at: float) -> float:
    return (at - path.stat().st_mtime) / DAY_S


def _older(paths: Iterator[Path], days: float | None, at: float) -> list[Path]:
    if days is None:
        return []
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # a command may delete meanwhile
            found += [path] if _age_days(path, at) > days else []
    return found


def _of_runs(home: SiteHome, days: float | None, at: float) -> list[Path]:
    """All files of a run, or none while the last one written is not old enough."""
    found: list[Path] = []
    for folder in home.runs.glob(RUNS) if days is not None else ():
        files = list(files_under(folder))
        old = _older(iter(files), days, at)
        found += old if len(old) == len(files) else []
    return found


def _ended(home: SiteHome, days: float | None, at: float) -> list[Path]:
    """Approvals that were taken back or whose time is over, with the snapshots of their cohorts."""
    if days is None:
        return []
    folder, before = home.approvals, at - days * DAY_S
    revoked = [path for path in (folder / "revoked").glob("*-*.json") if _revoked_at(path) < before]
    kept = [found for found, _ in approvals.standing(folder) if found.terms and found.terms.until < before]
    names = [found.terms.study_sha256 for found in kept if found.terms]
    over = [folder / f"{name}.{suffix}" for name in names for suffix in ("json", "cohort")]
    return [*revoked, *filter(Path.exists, over)]


def _revoked_at(path: Path) -> float:
    nanoseconds = path.stem.rpartition("-")[2]
    return int(nanoseconds) / 1e9 if nanoseconds.isdecimal() else float("inf")


def purge_expired(home: SiteHome, now: float | None = None) -> Path | None:
    """Delete what is due, up to `MOST` files of each kind, search for it, and give a receipt; None where
    nothing was. What an earlier try found elsewhere is searched for again.

    Raises DataError where something is left, ConfigError for a wrong policy.yaml and while data are added.
    """
    unfinished = home.folder / UNFINISHED / "purge-expired.json"
    found = due(home, now).first(MOST)
    if not found.counts() and not unfinished.exists():
        return None
    out, private = home.folder / CLEAN, home.folder / DEID
    private.mkdir(exist_ok=True, mode=0o700)
    with _no_intake(private, out) if found.files["originals"] else nullcontext():
        traces, size = _traces(found), found.bytes
        traces.add_kept(unfinished)
        traces.keep(unfinished)
        _delete(home, found)
    searched = _search(home, found, traces)
    unfinished.unlink()
    return _receipt(home, found, size, searched)


def _no_intake(private: Path, out: Path) -> AbstractContextManager[None]:
    """While originals go none is being cleaned. Raises ConfigError where one is."""
    from fedai_site.deidentify.run import alone  # pydicom and all: not in an agent that deletes nothing

    return alone(private, out)


def _traces(found: Due) -> Traces:
    """Not of approvals: a study's text may well lie elsewhere."""
    traces = Traces()
    for path in (path for kind, paths in found.files.items() if kind != "approvals" for path in paths):
        with suppress(FileNotFoundError):  # the agent, or a command, was there first
            traces.add(path.read_bytes())
            if path.suffix == ".npy":
                traces.add(np.load(path, allow_pickle=False).tobytes())
    return traces


def _delete(home: SiteHome, found: Due) -> None:
    for paths in found.files.values():
        for path in paths:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in found.files["arrays"]}:
        with suppress(OSError):  # not empty
            folder.rmdir()
    for parts in {path.relative_to(home.runs).parts[:2] for path in found.files["runs"]}:
        if not any(files_under(home.runs.joinpath(*parts))):
            shutil.rmtree(home.runs.joinpath(*parts), ignore_errors=True)


def _search(home: SiteHome, found: Due, traces: Traces) -> dict[str, int]:
    held, number, size = find(traces, _searched(home))
    gone = [path for paths in found.files.values() for path in paths if path.exists()]
    left = sorted({*held, *gone})
    if left:
        raise DataError(
            f"{len(left)} files still hold what the policy says is kept too long",
            where=", ".join(str(path.relative_to(home.folder)) for path in left[:5]),
            hint="delete them and purge again; there is no receipt yet",
        )
    return {"files": number, "bytes": size, "left": 0}


def _searched(home: SiteHome) -> Iterator[Path]:
    """All files but those that may hold the same on good grounds: clean images and other originals of the
    same pixels, other arrays, other runs' answers, the same answer as it left.
    """
    of_runs = set(home.runs.glob(RUNS))
    grounds = (
        (home.folder / CLEAN, ".dcm"), (home.folder / INBOX, ".dcm"), (home.folder / cache.CACHE, ".npy"),
        (home.sent, ".bin"), (home.folder / DEID / PICTURES, ".png"),
    )  # fmt: skip
    for path in files_under(home.folder):
        alike = any(path.suffix == suffix and path.is_relative_to(folder) for folder, suffix in grounds)
        if not alike and path.parent.name != UNFINISHED and of_runs.isdisjoint(path.parents):
            yield path


def _receipt(home: SiteHome, found: Due, size: int, searched: dict[str, int]) -> Path:
    now = datetime.now(UTC)
    facts: dict[str, Any] = {
        "receipt": "purge of what was kept too long",
        "site": home.settings.name,
        "purged_at": now.isoformat(timespec="seconds"),
        "deleted": {**found.counts(), "bytes": size},
        "searched": searched,
        "kept": KEPT,
    }
    home.receipts.mkdir(exist_ok=True, mode=0o700)
    path = home.receipts / f"purge-expired-{now:%Y-%m-%dT%H%M%S.%f%z}.json"
    path.write_bytes(receipts.sign(home.folder / "keys", facts))
    return path


def keep_to_the_policy(home: SiteHome) -> None:
    """In the agent: delete what is due; what stands in the way is in the log, and is tried again in a day."""
    try:
        while receipt := purge_expired(home):
            log.info("what was kept too long is deleted: %s", receipt.name)
    except (ConfigError, DataError, OSError) as error:
        log.error("what is kept too long could not be deleted: %s", error)
