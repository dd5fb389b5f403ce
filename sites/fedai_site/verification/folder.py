"""Reads a folder of written objects again: the second reader's one function."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from fedai.errors import ConfigError
from fedai_site.verification.evidence import EVIDENCE, check_evidence
from fedai_site.verification.findings import Finding, Findings, Picture, Severity, in_order
from fedai_site.verification.identities import Identity, check_identities, counts_of, tables_of
from fedai_site.verification.index import Index, build
from fedai_site.verification.known import Known, read_known
from fedai_site.verification.objects import Reading, read_object
from fedai_site.verification.part10 import take_apart
from fedai_site.verification.pictures import FAULTS, frames_of, picture
from fedai_site.verification.scanning import Context, scan_text
from fedai_site.verification.second_table import load_second_table

BESIDE = frozenset({EVIDENCE, "adequacy.html", "adequacy.json"})
"""Files at the top of the folder that aren't objects and may be there."""
CHECKS = (
    "file structure", "claims", "table", "dates", "ages", "private", "graphics", "unlisted", "known values",
    "form of an identifier", "references", "evidence", "pixels",
)  # fmt: skip
MOST_FINDINGS = 20_000


def verify(
    folder: Path,
    known: Path | None = None,
    *,
    workers: int = 0,
    samples: int = 24,
    seed: int = 0,
    decode: bool = True,
    needs_evidence: bool = True,
    key_id: str = "",
) -> Findings:
    """Read everything below `folder` and say what was found.

    `known` is a CSV file of the site's known identifiers. `workers` is the number of processes, 0 for
    this one alone (then a decoder that crashes takes it along). `samples` pictures of objects that claim
    to be free of text are chosen by `seed`. `decode` also searches decoded pixels. `key_id` names the key
    that all evidence must be of; without it, that of most files. Raises ConfigError for a folder or a list
    that can't be used; never for the content of a file.
    """
    if not folder.is_dir():
        raise ConfigError("is not a folder", where=str(folder))
    listed = read_known(known) if known else None
    index = build(listed)
    files, found = _files(folder, index)
    readings = sorted(_read_all(folder, files, index, workers, decode), key=lambda reading: reading.file)
    objects = [reading.identity for reading in readings if reading.identity]
    found += [finding for reading in readings for finding in reading.findings]
    found += check_identities(objects)
    if needs_evidence or (folder / EVIDENCE).exists():
        hashes = {one.file: one.sha256 for one in objects}
        found += check_evidence(folder, hashes, Context(index, EVIDENCE), key_id)
    if not objects:
        found.append(Finding(Severity.VIOLATION, "file structure", "there is no DICOM object in the folder"))
    pictures = tuple(_pictures(folder, objects, samples, seed))
    counts = _counts(readings, objects, found)
    findings, pictures = _unnamed(in_order(found)[:MOST_FINDINGS], pictures, files)
    return Findings(folder.name, counts, CHECKS, findings, pictures, _facts(objects, listed))


def _unnamed(
    found: tuple[Finding, ...], pictures: tuple[Picture, ...], files: Sequence[str]
) -> tuple[tuple[Finding, ...], tuple[Picture, ...]]:
    """Files whose very name is a finding are called by their number in the order of names."""
    bad = sorted({f.file for f in found if f.place in ("file name", "folder name")})
    numbers = {file: number for number, file in enumerate(files, 1)}
    alias = {name: f"file {numbers[name]} of {len(files)}" if name in numbers else "a folder" for name in bad}
    return (
        tuple(replace(f, file=alias.get(f.file, f.file)) for f in found),
        tuple(replace(p, file=alias.get(p.file, p.file)) for p in pictures),
    )


def _files(folder: Path, index: Index) -> tuple[list[str], list[Finding]]:
    """Paths of all files in the folder that should be objects, and what is wrong with the names of others."""
    files: list[str] = []
    found: list[Finding] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            message = "a link: what it points to isn't in the folder"
            found.append(Finding(Severity.VIOLATION, "file structure", message, name))
        elif path.is_dir():
            found += scan_text(path.name, Context(index, name), "folder name")
        elif name not in BESIDE:
            files.append(name)
    return files, found


def _read_all(
    folder: Path, files: Sequence[str], index: Index, workers: int, decode: bool
) -> Iterator[Reading]:
    """Read in this process or in many. If one of them dies, the files whose turn it was are read one by
    one.
    """
    if workers < 1:
        yield from (read_object(folder / file, file, index, decode=decode) for file in files)
        return
    left = list(files)
    while left:
        done, left = _in_pool(folder, left, index, workers, decode)
        yield from done
        suspects, left = left[: 2 * workers], left[2 * workers :]
        for file in suspects:
            alone, _ = _in_pool(folder, [file], index, 1, decode)
            yield alone[0] if alone else _crashed(file)


def _in_pool(
    folder: Path, files: list[str], index: Index, workers: int, decode: bool
) -> tuple[list[Reading], list[str]]:
    """(what was read, files from the first on that was not because a process died)."""
    done: list[Reading] = []
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (index, decode)) as pool:
        futures = [pool.submit(_read_one, str(folder), file) for file in files]
        try:
            for future in futures:
                done.append(future.result())
        except BrokenProcessPool:
            return done, files[len(done) :]
    return done, []


def _crashed(file: str) -> Reading:
    message = "the process that read it died: its pixels crash a decoder"
    return Reading(file, 0, None, (Finding(Severity.VIOLATION, "pixels", message, file, "(7FE0,0010)"),))


_IN_WORKER: dict[str, tuple[Index, bool]] = {}


def _begin(index: Index, decode: bool) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _IN_WORKER["index"] = (index, decode)


def _read_one(folder: str, file: str) -> Reading:
    index, decode = _IN_WORKER["index"]
    return read_object(Path(folder) / file, file, index, decode=decode)


def _counts(
    readings: Sequence[Reading], objects: Sequence[Identity], found: Sequence[Finding]
) -> dict[str, int]:
    counts = {"files": len(readings), **counts_of(objects)}
    counts["bytes of decoded pixels"] = sum(reading.decoded_bytes for reading in readings)
    counts["files with findings"] = len({finding.file for finding in found})
    return counts


def _facts(objects: Sequence[Identity], listed: Known | None) -> dict[str, object]:
    return {
        "table_edition": load_second_table().edition,
        "tables": tables_of(objects),
        "known": {
            "given": listed is not None,
            "rows": listed.rows if listed else 0,
            "values": len(listed.values) if listed else 0,
            "columns": list(listed.columns) if listed else [],
            "not_searched": list(listed.not_searched) if listed else [],
        },
    }


def _pictures(folder: Path, objects: Sequence[Identity], samples: int, seed: int) -> Iterator[Picture]:
    """Pictures of objects that claim to be free of text, chosen by `seed`, in the order of their paths."""
    claiming = [one for one in objects if one.has_pixels and one.burned_in == "NO"]
    chosen = random.Random(seed).sample(claiming, min(samples, len(claiming)))
    for one in sorted(chosen, key=lambda one: one.file):
        path = folder / one.file
        try:
            parts = take_apart(memoryview(path.read_bytes()))
            frame = random.Random(f"{seed} {one.file}").randrange(frames_of(parts))
            yield Picture(one.file, frame, picture(path, parts, frame))
        except FAULTS:
            continue
