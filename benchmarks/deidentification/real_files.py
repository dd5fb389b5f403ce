"""pydicom's and pydicom-data's own files: written, nothing listed or private left, pixels intact."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary

from benchmarks.deidentification import validity
from benchmarks.deidentification.leaks import FAULTS, decoded
from benchmarks.deidentification.standard import listed
from benchmarks.deidentification.table import SETS_ANEW, read

FLAT = 0.95
"""Share of neighbours that are alike where pixels were changed, from which on that is called blanking."""


def collect(folder: Path) -> int:
    """Copy every different readable DICOM object of the two packages into one folder; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for path in candidates():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in seen and _is_object(path):
            seen.add(digest)
            name = path.name if not (folder / path.name).exists() else f"{len(seen)}-{path.name}"
            shutil.copyfile(path, folder / name)
    return len(seen)


def candidates() -> list[Path]:
    """All files of pydicom's test data and, where it is installed, of pydicom-data."""
    roots = [Path(pydicom.__file__).parent / "data"]
    found = find_spec("data_store")
    roots += [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    return sorted(
        path for root in roots for path in root.rglob("*") if path.is_file() and path.suffix != ".py"
    )


def _is_object(path: Path) -> bool:
    """DICOM that pydicom can read and that says what it is; media directories are no objects."""
    try:
        dataset = pydicom.dcmread(path, force=True)
        return bool(dataset.get("SOPClassUID")) and "DirectoryRecordSequence" not in dataset
    except FAULTS:
        return False


def judge(before: Path, after: Path, program: Path | None) -> dict[str, Any]:
    """The row of the table for one tool's output over the real files."""
    told: Counter[str] = Counter()
    invalid: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for path in sorted(before.iterdir()):
        told["files"] += 1
        source, target = read(path), read(after / path.name)
        if source is None or target is None or not (after / path.name).is_file():
            continue
        told["written"] += 1
        values = listed_left(source, target)
        if values:
            left[path.name] = values
        told["private"] += any(element_is_private(target))
        told[pixels(source, target, path)] += 1
        new = validity.new_errors(program, path, after / path.name) if program else frozenset()
        if new:
            invalid[path.name] = sorted(new)
    return {
        **told, "listed_left": left, "files_with_new_errors": len(invalid) if program else None,
        "new_errors": invalid,
    }  # fmt: skip


def listed_left(source: Dataset, target: Dataset) -> list[str]:
    """Listed attributes that should be gone and are there, or that still have a value of the input's."""
    old: dict[int, set[str]] = {}
    for tag, value in _walk(source):
        old.setdefault(tag, set()).add(value)
    found = []
    for tag, value in _walk(target):
        row = listed().get(tag)
        if row is None or tag in SETS_ANEW or not value.strip():
            continue
        same = value in old.get(tag, ()) and value not in UID_dictionary
        if (row.basic == "X" and tag in old) or same:
            found.append(f"{row.tag} {row.name} ({row.basic})")
    return found


def _walk(item: Dataset) -> Any:
    """(tag, value as text) of every attribute at every depth; of a sequence only how many items it has."""
    for tag in list(item.keys()):
        try:
            element = item[tag]
        except FAULTS:
            continue
        if element.VR == "SQ":
            for inner in element.value or []:
                yield from _walk(inner)
        else:
            yield int(tag), str(element.value if element.value is not None else "")


def element_is_private(item: Dataset) -> Any:
    for tag in list(item.keys()):
        yield tag.is_private
        try:
            items = item[tag].value if item[tag].VR == "SQ" else []
        except FAULTS:
            continue
        for inner in items or []:
            yield from element_is_private(inner)


def pixels(source: Dataset, target: Dataset, file: Path | None = None) -> str:
    """'no pixels', 'identical', 'blanked' (differs in places that are flat now), 'changed', 'pixels lost'.

    `file`: the source's, for GDCM, which reads JPEG with 12 bits where pydicom doesn't.
    """
    if "PixelData" not in source:
        return "no pixels"
    if "PixelData" not in target:
        return "pixels lost"
    if bytes(source.PixelData) == bytes(target.PixelData):
        return "identical"
    try:
        one, two = _source_of(source, file), decoded(target)
    except FAULTS:
        return "identical" if _compressed_alike(source, target) else "pixels undecodable"
    if one.shape != two.shape:
        return "changed"
    if np.array_equal(one, two):
        return "identical"
    return "blanked" if _is_flat(one, two) else "changed"


def _source_of(source: Dataset, file: Path | None) -> NDArray[Any]:
    """Stored values [frames, rows, columns, samples]; raises one of FAULTS where neither decodes them."""
    if "TransferSyntaxUID" not in source.file_meta:  # a file without meta information, read as it lies
        implicit = source.original_encoding[0]
        source.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    try:
        return np.asarray(decoded(source))
    except FAULTS:
        if file is None or source.BitsAllocated != 16:
            raise
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    if not reader.Read():
        raise ValueError("GDCM can't read it")
    values = np.frombuffer(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"), "<u2")
    return values.reshape(int(source.get("NumberOfFrames") or 1), source.Rows, source.Columns, -1)


def _is_flat(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether neighbours in a row that were both changed have one value now, nearly all of them."""
    changed = np.any(one != two, axis=-1)
    both = changed[:, :, 1:] & changed[:, :, :-1]
    alike = np.all(two[:, :, 1:] == two[:, :, :-1], axis=-1)
    return bool(alike[both].mean() >= FLAT) if both.any() else False


def _compressed_alike(source: Dataset, target: Dataset) -> bool:
    """Codestreams that can't be decoded here, of one length, of which nearly all bytes are the same."""
    one, two = bytes(source.PixelData), bytes(target.PixelData)
    same = len(one) == len(two) and sum(a == b for a, b in zip(one, two, strict=True))
    return bool(same) and same > 0.9 * len(one)
