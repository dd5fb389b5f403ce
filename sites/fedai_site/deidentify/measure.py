"""Files per second of the header engine and of a plain pydicom copy, on the same files in the same run."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter

import pydicom

from fedai.errors import DataError
from fedai_site.deidentify import reading
from fedai_site.deidentify.engine import Deidentifier, write
from fedai_site.deidentify.profile import Profile
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine

PASSES = 5
UNUSABLE: tuple[type[Exception], ...] = (Quarantine, *FAULTS)
Work = Callable[[bytes], bytes]


def measure(folder: Path, profile: Profile, files: int) -> dict[str, float]:
    """Median files per second over 5 passes in turn, bytes to bytes. Raises DataError without files."""
    engine = Deidentifier(secrets.token_bytes(32), profile)
    usable = [data for data in _first(folder, files) if _works(engine, data)]
    if not usable:
        raise DataError("no file there can be cleaned", where=str(folder))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    works: dict[str, Work] = {"plain": _copy, "ours": partial(_clean, engine)}
    for number in range(PASSES):
        for name in sorted(works, reverse=bool(number % 2)):
            seconds[name].append(_timed(works[name], usable))
    plain, ours = median(seconds["plain"]), median(seconds["ours"])
    return {
        "files": len(usable),
        "megabytes": round(sum(map(len, usable)) / 1e6, 1),
        "plain_copy_files_per_s": round(len(usable) / plain, 1),
        "deidentified_files_per_s": round(len(usable) / ours, 1),
        "ratio": round(plain / ours, 3),
    }


def _first(folder: Path, files: int) -> list[bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.read_bytes() for path in paths[:files]]


def _works(engine: Deidentifier, data: bytes) -> bool:
    try:
        _clean(engine, data)
        _copy(data)
    except UNUSABLE:
        return False
    return True


def _clean(engine: Deidentifier, data: bytes) -> bytes:
    return write(engine.clean(reading.parse(data)))


def _copy(data: bytes) -> bytes:
    buffer = BytesIO()
    with silenced():
        pydicom.dcmread(BytesIO(data), force=True).save_as(buffer)
    return buffer.getvalue()


def _timed(work: Work, files: list[bytes]) -> float:
    start = perf_counter()
    for data in files:
        work(data)
    return perf_counter() - start
