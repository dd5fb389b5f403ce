"""Masks of images: which pixel is in which structure, taken over from objects that outline them.

A mask rests as uint8 [rows, columns] below `masks/PATIENT/`, named by its image's clean SOP Instance UID: 0
is background, 1 the first of its structures. A mask says something of every structure that its objects speak
of, drawn on that image or not. Of the words in an original nothing comes here: a structure is called what
the site engineer calls it. Where text was blanked in the image, its mask is background: it could draw the
very letters.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedai.errors import ConfigError
from fedai.study import Segmentation

MASKS = "masks"
MOST_LABELS = 40  # of one image; a study has 20 at most
SCHEMA = """
CREATE TABLE IF NOT EXISTS masks (
    image TEXT PRIMARY KEY,            -- SOP Instance UID of the clean object
    patient TEXT NOT NULL,             -- pseudonym
    path TEXT NOT NULL, sha256 TEXT NOT NULL,  -- of the mask's file, below the site's home
    row_count INTEGER NOT NULL, column_count INTEGER NOT NULL,
    row_mm REAL NOT NULL, column_mm REAL NOT NULL,     -- between rows, between columns
    structures TEXT NOT NULL,          -- JSON: name of label 1, 2 ...
    present TEXT NOT NULL,             -- JSON: those that have a pixel
    sources TEXT NOT NULL,             -- JSON: SHA-256 of the object it came from -> kind and structures
    blanked TEXT NOT NULL DEFAULT '[]',  -- JSON: boxes of text in the image; the mask is background there
    cut INTEGER NOT NULL DEFAULT 0     -- pixels of structures that were in these boxes
);
CREATE INDEX IF NOT EXISTS masks_by_patient ON masks (patient);
"""
ADDED = ("blanked TEXT NOT NULL DEFAULT '[]'", "cut INTEGER NOT NULL DEFAULT 0")  # after the first release
Labels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1) in pixels; the ends are not part of it."""


@dataclass(frozen=True)
class Mask:
    """A mask as catalogued. `size`: rows, columns; `spacing`: mm between rows, between columns. `blanked`:
    boxes of the image's text, where it was made background; `cut`: how many pixels of structures that took.
    """

    image: str
    patient: str
    path: str
    sha256: str
    size: tuple[int, int]
    spacing: tuple[float, float]
    structures: tuple[str, ...]
    present: tuple[str, ...]
    sources: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict, hash=False)
    blanked: tuple[Box, ...] = ()
    cut: int = 0

    def row(self) -> tuple[object, ...]:
        """As the table has it."""
        lists = (self.structures, self.present, self.sources, self.blanked)
        own = (self.image, self.patient, self.path, self.sha256, *self.size, *self.spacing)
        return (*own, *(json.dumps(one, sort_keys=True) for one in lists), self.cut)


class Masks:
    """The catalogue's table of masks. Use as a context manager; each method is one transaction."""

    def __init__(self, catalogue: Path) -> None:
        self._connection = sqlite3.connect(catalogue, timeout=30)
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.executescript(SCHEMA)
        self._add_columns()

    def _add_columns(self) -> None:
        """Bring up a table that an earlier release made."""
        with self._connection as connection:
            if "cut" in _columns(connection):
                return
            connection.execute("BEGIN IMMEDIATE")
            for column in () if "cut" in _columns(connection) else ADDED:
                connection.execute(f"ALTER TABLE masks ADD COLUMN {column}")

    def __enter__(self) -> Masks:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def find(self, image: str) -> Mask | None:
        """The mask of a clean image."""
        row = self._connection.execute("SELECT * FROM masks WHERE image = ?", (image,)).fetchone()
        return None if row is None else _mask(row)

    def all(self) -> dict[str, Mask]:
        """Clean SOP Instance UID -> mask."""
        return {row[0]: _mask(row) for row in self._connection.execute("SELECT * FROM masks")}

    def of_patients(self, patients: Iterable[str]) -> list[Mask]:
        """The masks of some patients' images."""
        query = "SELECT * FROM masks WHERE patient = ? ORDER BY image"
        return [_mask(row) for one in patients for row in self._connection.execute(query, (one,))]

    def keep(self, masks: Iterable[Mask]) -> None:
        """Catalogue masks in the place of those that were known of the same images."""
        with self._connection as connection:
            marks = ", ".join("?" * 13)
            rows = [mask.row() for mask in masks]
            connection.executemany(f"INSERT OR REPLACE INTO masks VALUES ({marks})", rows)  # noqa: S608

    def forget(self, images: Iterable[str]) -> None:
        """Take masks out of the catalogue."""
        with self._connection as connection:
            connection.executemany("DELETE FROM masks WHERE image = ?", [(image,) for image in images])


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(masks)")}


def _mask(row: tuple[object, ...]) -> Mask:
    image, patient, path, digest, *numbers = row[:8]
    structures, present, sources, blanked = (json.loads(str(text)) for text in row[8:12])
    rows, columns, row_mm, column_mm = (float(str(number)) for number in numbers)
    return Mask(
        str(image),
        str(patient),
        str(path),
        str(digest),
        (int(rows), int(columns)),
        (row_mm, column_mm),
        tuple(structures),
        tuple(present),
        {one: (kind, tuple(names)) for one, (kind, names) in sources.items()},
        tuple((row0, col0, row1, col1) for row0, col0, row1, col1 in blanked),
        int(str(row[12])),
    )


def parse_structures(words: Iterable[str]) -> dict[str, str]:
    """`NAME THERE=structure` of the command line -> name there -> structure. Raises ConfigError."""
    found = {}
    for word in words:
        there, _, ours = word.rpartition("=")
        try:
            TypeAdapter(Segmentation).validate_python({"kind": "segmentation", "structures": [ours]})
        except ValidationError:
            there = ""
        if not there.strip():
            raise ConfigError(
                f"--structure {word!r} doesn't say which structure is which",
                hint='"NAME THERE=structure": letters, digits, - and _ in the structure\'s own name',
            )
        found[there.strip()] = ours
    return found


def drop_orphans(home: Path, masks: Masks, images: Collection[str]) -> None:
    """Delete masks whose image isn't there any more."""
    gone = [mask for mask in masks.all().values() if mask.image not in images]
    for mask in gone:
        (home / mask.path).unlink(missing_ok=True)
    masks.forget(mask.image for mask in gone)


def without(labels: Labels, mask: Mask, boxes: Iterable[Box]) -> tuple[Labels, Mask]:
    """A mask and its record with background in boxes of its image that were blanked."""
    left = labels.copy()
    for row0, col0, row1, col1 in boxes:
        left[row0:row1, col0:col1] = 0
    present = tuple(name for n, name in enumerate(mask.structures, 1) if (left == n).any())
    cut, blanked = int((labels != left).sum()), tuple(sorted({*mask.blanked, *boxes}))
    digest = sha256(pack(left)).hexdigest()
    return left, replace(mask, sha256=digest, present=present, blanked=blanked, cut=mask.cut + cut)


def pack(labels: Labels) -> bytes:
    """The bytes of a mask's file."""
    buffer = BytesIO()
    np.save(buffer, labels, allow_pickle=False)
    return buffer.getvalue()


def write(path: Path, labels: Labels) -> None:
    """Write a mask's file, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    part.write_bytes(pack(labels))
    part.replace(path)


def is_intact(home: Path, mask: Mask) -> bool:
    """Whether a mask's file is there, as it was catalogued."""
    try:
        return sha256((home / mask.path).read_bytes()).hexdigest() == mask.sha256
    except OSError:
        return False


def read_labels(path: Path) -> Labels:
    """uint8 [rows, columns] of a mask's file."""
    labels: Labels = np.load(path, allow_pickle=False)
    return labels


def files_of(home: Path, patients: Collection[str]) -> list[Path]:
    """Every mask on disk of these patients."""
    found = [path for patient in patients for path in (home / MASKS / patient).rglob("*")]
    return sorted(path for path in found if path.is_file())


def forget(home: Path, catalogue: Path, patients: Collection[str]) -> None:
    """Delete these patients' masks, on disk and in the catalogue."""
    for patient in patients:
        shutil.rmtree(home / MASKS / patient, ignore_errors=True)
    with Masks(catalogue) as masks:
        masks.forget(mask.image for mask in masks.of_patients(patients))
