"""Images as uint8 arrays on disk: prepared once per case and preprocessing, so that no later epoch opens a
DICOM file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedai.errors import DataError
from fedai.preparation import fit_labels, placed, prepare
from fedai_site.masks import Mask, is_intact, read_labels

if TYPE_CHECKING:
    from fedai.study import Preprocessing
    from fedai_site.cohort import Case

RELEASE = 2
"""Part of every key: raise it when the same file would give other pixels."""
CACHE = "cache"


def load(home: Path, cases: Sequence[Case], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """uint8 [cases, 1, rows, columns] in the order of the cases, from the cache or, where that lacks one,
    from its file.

    Raises DataError if a clean file is missing or isn't the one that was catalogued, Quarantine if it can't
    be decoded.
    """
    rows, columns = preprocessing.image_size
    images = np.empty((len(cases), 1, rows, columns), dtype=np.uint8)
    folder = folder_of(home, preprocessing)
    for patient in {case.patient for case in cases}:
        (folder / patient).mkdir(parents=True, exist_ok=True)  # before any file is read: see `forget`
    for number, case in enumerate(cases):
        images[number, 0] = _image(folder / case.patient, case, preprocessing)
    return images


def load_masks(
    home: Path, cases: Sequence[Case], preprocessing: Preprocessing, structures: Sequence[str]
) -> NDArray[np.uint8]:
    """uint8 [cases, rows, columns], `structures` as 1, 2 ..., as `load` gives the images.

    Raises DataError if a mask is missing or isn't the one that was catalogued.
    """
    masks = np.empty((len(cases), *preprocessing.image_size), dtype=np.uint8)
    folder = folder_of(home, preprocessing)
    for number, case in enumerate(cases):
        assert case.mask is not None
        (folder / case.patient).mkdir(parents=True, exist_ok=True)
        ours = [structures.index(name) + 1 if name in structures else 0 for name in case.mask.structures]
        labels = np.array([0, *ours], dtype=np.uint8)
        masks[number] = labels[_labels(home, folder / case.patient, case, case.mask, preprocessing)]
    return masks


def spacing_of(cases: Sequence[Case], preprocessing: Preprocessing) -> NDArray[np.float64]:
    """mm between rows and between columns once a case's mask has the study's size, float64 [cases, 2]."""
    found = np.zeros((len(cases), 2))
    for number, mask in enumerate(case.mask for case in cases):
        if mask is not None:
            height, width = placed(mask.size, preprocessing.image_size)[:2]
            found[number] = np.array(mask.spacing) * np.array(mask.size) / (height, width)
    return found


def folder_of(home: Path, preprocessing: Preprocessing) -> Path:
    """Where the arrays of all studies with this preprocessing lie, by patient."""
    return home / CACHE / _settings(preprocessing)


def arrays_of(home: Path, patients: Collection[str]) -> list[Path]:
    """Every cached array of these patients, and all of an earlier release, which didn't note whose it was."""
    found = []
    for folder in (home / CACHE).glob("*"):
        is_current = folder.name.startswith(f"v{RELEASE}-")
        for part in [folder / patient for patient in patients] if is_current else [folder]:
            found += [path for path in part.rglob("*") if path.is_file()]
    return sorted(found)


def forget(home: Path, patients: Collection[str]) -> None:
    """Delete what `arrays_of` lists, after the clean files.

    Another process that still reads can't write an array again: its folder is gone, and if it made it anew,
    that was before it looked for the clean file, which isn't there.
    """
    for folder in (home / CACHE).glob("*"):
        is_current = folder.name.startswith(f"v{RELEASE}-")
        for part in [folder / patient for patient in patients] if is_current else [folder]:
            shutil.rmtree(part, ignore_errors=True)


def _settings(preprocessing: Preprocessing) -> str:
    low, high = preprocessing.lower_percentile, preprocessing.upper_percentile
    rows, columns = preprocessing.image_size
    return f"v{RELEASE}-{rows}x{columns}-{low:g}-{high:g}"


def _image(folder: Path, case: Case, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    cached = folder / f"{_key(case)}.npy"
    found = _read(cached, preprocessing.image_size)
    if found is not None:
        return found
    bounds = preprocessing.lower_percentile, preprocessing.upper_percentile
    image = prepare(_pixels(case), preprocessing.image_size, *bounds)
    _write(cached, image)
    return image


def _labels(
    home: Path, folder: Path, case: Case, mask: Mask, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """A mask in the study's size, with the labels that it has here."""
    path = home / mask.path
    try:
        stat = path.stat()
    except OSError as error:
        raise _changed(path, "mask is missing") from error
    facts = f"mask/{case.id}/{mask.sha256}/{stat.st_size}/{stat.st_mtime_ns}"
    cached = folder / f"{sha256(facts.encode()).hexdigest()[:40]}.npy"
    found = _read(cached, preprocessing.image_size)
    if found is None:
        if not is_intact(home, mask):
            raise _changed(path, "mask isn't the one that was catalogued")
        found = fit_labels(read_labels(path), preprocessing.image_size)
        _write(cached, found)
    return found


def _key(case: Case) -> str:
    """Changes with the clean file: its catalogued hash, and the size and time of what lies on disk."""
    try:
        stat = case.path.stat()
    except OSError as error:
        raise _changed(case.path, "clean file is missing") from error
    return sha256(f"{case.id}/{case.sha256}/{stat.st_size}/{stat.st_mtime_ns}".encode()).hexdigest()[:40]


def _changed(path: Path, what: str) -> DataError:
    return DataError(f"a {what}", where=str(path), hint="run `fedai site add-data` again on its source")


def _pixels(case: Case) -> NDArray[np.float32]:
    from fedai_site import intake

    data = case.path.read_bytes()
    if sha256(data).hexdigest() != case.sha256:
        raise _changed(case.path, "clean file isn't the one that was catalogued")
    return intake.decode(data)


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """A cached image, or None if there is none or it isn't whole."""
    try:
        image: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return image if image.shape == tuple(size) and image.dtype == np.uint8 else None


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    buffer = BytesIO()
    np.save(buffer, image, allow_pickle=False)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(buffer.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
