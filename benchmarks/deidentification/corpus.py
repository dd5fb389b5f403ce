"""Writes the corpus: thousands of objects with about 85 planted identifiers each, and the answer key.

The same seed gives the same bytes. Kinds, scripts and transfer syntaxes go round, so that each meets each.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from benchmarks.deidentification.burned import burn
from benchmarks.deidentification.codestreams import compress
from benchmarks.deidentification.identities import SCRIPTS, Person, person, word
from benchmarks.deidentification.leaks import still_there
from benchmarks.deidentification.objects import COLOUR, WITHOUT_PIXELS, invent
from benchmarks.deidentification.places import PLACES
from benchmarks.deidentification.plants import Hand

KINDS = (
    "CT", "CT", "CT", "CR", "CT", "MR", "US", "CT", "SC", "DX", "CT", "RTSTRUCT", "PT", "CT", "SR", "MG",
    "CT",
    "XA", "ECG", "CT", "KO", "MR", "PR", "RTPLAN", "CT", "NM", "US MULTI", "OP", "ENHANCED CT", "VL",
    "RTDOSE",
    "PDF", "RAW", "SEG", "CT", "MR",
)  # fmt: skip
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, ImplicitVRLittleEndian, JPEGBaseline8Bit,
)  # fmt: skip
BURNED = ("US", "SC", "CR", "XA", "US MULTI", "DX")
FILES_PER_PATIENT = 10


@dataclass(frozen=True)
class Made:
    """One file of the corpus: its bytes, its entry of the answer key."""

    path: str
    data: bytes
    entry: dict[str, Any]


def quiet() -> None:
    """Planted values don't fit their representations; pydicom would say so for each."""
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    warnings.simplefilter("ignore")


def write_corpus(folder: Path, files: int, seed: int, sources: list[Path] = ()) -> dict[str, Any]:
    """Write `files` objects under `folder`/in and the answer key beside it; gives the key.

    `sources`: real files; every seventh object is one of them, with the identifiers planted on top.
    """
    entries = {}
    one_file = partial(_quiet_file, seed=seed, sources=list(sources))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for made in pool.map(one_file, range(files), chunksize=25):
            path = folder / "in" / made.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made.data)
            entries[made.path] = made.entry
    key = {"seed": seed, "files": entries}
    (folder / "key.json").write_text(json.dumps(key, ensure_ascii=False), encoding="utf-8")
    return key


def _quiet_file(number: int, seed: int, sources: list[Path]) -> Made:
    quiet()
    return _file(number, seed, sources, burned=True)


def generate(files: int, seed: int, sources: list[Path], *, burned: bool = True) -> Iterator[Made]:
    """The objects in their order. `burned`: with text in the pixels of some, which takes Pillow."""
    for number in range(files):
        yield _file(number, seed, sources, burned)


def _file(number: int, seed: int, sources: list[Path], burned: bool) -> Made:
    patient_number, within = divmod(number, FILES_PER_PATIENT)
    script = SCRIPTS[patient_number % len(SCRIPTS)]
    someone = person(Random(f"{seed}/patient/{patient_number}"), script)
    random = Random(f"{seed}/file/{number}")
    day = someone.first_study + timedelta(days=400 * (within // 5))
    hand = Hand(random, someone, day)
    kind, item = _object(number, random, sources)
    names = _identity(item, hand, seed, patient_number, within)
    syntax = _syntax(item, kind, number)
    if burned and kind in BURNED and random.random() < 0.7:
        burn(item, hand)
    _plant(item, hand)
    data = _encoded(item, syntax, hand)
    path = f"{someone.number}/{word(random)}-{number:05}.dcm"
    there = still_there([plant.as_json() for plant in hand.planted], data, data)
    entry = {
        "patient": f"{patient_number}", "kind": kind, "script": script.name, "syntax": str(syntax), **names,
        "plants": there,
    }  # fmt: skip
    return Made(path, data, entry)


def _object(number: int, random: Random, sources: list[Path]) -> tuple[str, Dataset]:
    kind = KINDS[number % len(KINDS)]
    if sources and number % 7 == 3:
        source = sources[number // 7 % len(sources)]
        return f"real {source.name}", pydicom.dcmread(source, force=True)
    return kind, invent(kind, random, side=192 if kind in BURNED else 64)


def _identity(item: Dataset, hand: Hand, seed: int, patient: int, within: int) -> dict[str, str]:
    """Two studies a patient, two series a study; a reference to the object before."""
    study, root = within // 5, f"1.2.410.200067.{seed}.{hand.person.number}"
    item.StudyInstanceUID = UID(hand.note(f"{root}.{study}", "(0020,000D) UI", "uid"))
    item.SeriesInstanceUID = UID(hand.note(f"{root}.{study}.{within % 2}", "(0020,000E) UI", "uid"))
    item.SOPInstanceUID = UID(hand.note(f"{root}.{study}.9.{within}", "(0008,0018) UI", "uid"))
    item.FrameOfReferenceUID = UID(f"{root}.{study}.8")
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    before = f"{root}.{study}.9.{within - 1}" if within % 5 else ""
    if before:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.SOPClassUID
        reference.ReferencedSOPInstanceUID = UID(hand.note(before, "(0008,114A)/(0008,1155) UI", "uid"))
        item.ReferencedInstanceSequence = Sequence([reference])
    return {"uid": str(item.SOPInstanceUID), "study": str(item.StudyInstanceUID), "refers": before}


def _syntax(item: Dataset, kind: str, number: int) -> UID:
    if kind.startswith("real"):
        return UID(item.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
    syntax = SYNTAXES[number % len(SYNTAXES)]
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        no_jpeg = kind not in COLOUR or find_spec("PIL") is None
        without = kind in WITHOUT_PIXELS or (syntax == JPEGBaseline8Bit and no_jpeg)
        return ExplicitVRLittleEndian if without or kind == "RTDOSE" else syntax
    return syntax


def _plant(item: Dataset, hand: Hand) -> None:
    item.file_meta.TransferSyntaxUID = item.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
    if hand.person.script.character_set:
        item.SpecificCharacterSet = list(hand.person.script.character_set)
    elif "SpecificCharacterSet" in item:
        del item.SpecificCharacterSet
    for place in PLACES:
        place(item, hand)


def _encoded(item: Dataset, syntax: UID, hand: Hand) -> bytes:
    """The file's bytes: pixels compressed with a comment inside, preamble, false group lengths."""
    if item.file_meta.TransferSyntaxUID != syntax and syntax.is_encapsulated and "PixelData" in item:
        compress(item, syntax, hand)
    _order(item, syntax)
    preamble = hand.note(word(hand.random, 6), "preamble", "preamble").encode().ljust(128, b"\0")
    item.preamble = preamble
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, item, enforce_file_format=True)
    data = buffer.getvalue()
    if hand.random.random() < 0.03 and syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        data += hand.note(word(hand.random, 5), "bytes after the data set", "trailer").encode()
    return data


def _order(item: Dataset, syntax: UID) -> None:
    """The byte order and kind of encoding that the syntax asks for, whatever the object had before."""
    if item.file_meta.TransferSyntaxUID != syntax and not syntax.is_encapsulated:
        item.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and "PixelData" in item and item.BitsAllocated == 16:
            raw = item.PixelData + b"\0" * (len(item.PixelData) % 2)
            item.PixelData = b"".join(raw[i + 1 : i + 2] + raw[i : i + 1] for i in range(0, len(raw), 2))


def patients(key: dict[str, Any]) -> dict[str, list[str]]:
    """Patient -> paths of the files, in the key's order."""
    found: dict[str, list[str]] = {}
    for path, entry in key["files"].items():
        found.setdefault(entry["patient"], []).append(path)
    return found


def someone(seed: int, patient_number: int) -> Person:
    """The invented person again."""
    return person(Random(f"{seed}/patient/{patient_number}"), SCRIPTS[patient_number % len(SCRIPTS)])
