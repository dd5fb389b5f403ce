"""Looks for the planted identifiers in what a tool wrote: bytes in every encoding, numbers, bits, ink."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from benchmarks.deidentification.burned import ink_left

ENCODINGS = (
    "utf-8", "latin-1", "iso8859-5", "euc-kr", "cp949", "iso2022-jp", "shift-jis", "euc-jp", "gb18030",
    "utf-16-le", "utf-16-be",
)  # fmt: skip
OWN_UIDS = re.compile(rb"2\.25\.\d{20,}")
FAULTS = (
    ArithmeticError, AttributeError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError,
    BytesLengthException, StopIteration, struct.error,
)  # fmt: skip
NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "DS", "IS"})


@dataclass
class Leaks:
    """What was found in one tool's output. `by_kind`: kind -> (plants in written files, leaked)."""

    plants: int = 0
    leaked: int = 0
    files: int = 0
    files_with_leaks: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    planted_by_kind: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        percent = 100 * self.leaked / self.plants if self.plants else None
        files = 100 * self.files_with_leaks / self.files if self.files else None
        return {
            "files_written": self.files, "plants": self.plants, "leaked": self.leaked,
            "leaked_percent": percent,
            "files_with_leaks": self.files_with_leaks, "files_with_leaks_percent": files,
            "by_kind": {kind: [self.by_kind[kind], count] for kind,
            count in sorted(self.planted_by_kind.items())},
            "examples": self.examples,
        }  # fmt: skip


def search(key: dict[str, Any], before: Path, after: Path, *, times: bool, dates: bool) -> Leaks:
    """Look for each file's plants in the file that the tool wrote for it, if it did.

    `times`, `dates`: whether times of day and dates must be gone (a tool that keeps dates by design is not
    blamed for that here, nor one that shifts days for keeping the time of day).
    """
    found = Leaks()
    jobs = [
        (path, _asked(entry["plants"], times, dates), before / path, after / path)
        for path, entry in key["files"].items()
        if (after / path).is_file()
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for path, plants, leaks in pool.map(_look, jobs, chunksize=25):
            _add(found, plants, leaks, path, key["files"][path])
    return found


def _asked(plants: list[dict[str, Any]], times: bool, dates: bool) -> list[dict[str, Any]]:
    return [p for p in plants if (times or p["kind"] != "time") and (dates or p["kind"] != "date")]


def _look(job: tuple[str, list[dict[str, Any]], Path, Path]) -> tuple[str, list[Any], list[Any]]:
    path, plants, before, after = job
    warnings.simplefilter("ignore")
    return path, plants, still_there(plants, before.read_bytes(), after.read_bytes())


def _add(found: Leaks, plants: list[Any], leaks: list[Any], path: str, entry: dict[str, Any]) -> None:
    found.files += 1
    found.plants += len(plants)
    found.leaked += len(leaks)
    found.files_with_leaks += bool(leaks)
    found.planted_by_kind.update(plant["kind"] for plant in plants)
    found.by_kind.update(plant["kind"] for plant in leaks)
    found.examples += [
        f"{path} [{entry['kind']}, {entry['script']}]: {leak['where']} {leak['kind']}: {leak['token']}"
        for leak in leaks[:3]
    ]


def still_there(plants: list[dict[str, Any]], before: bytes, data: bytes) -> list[dict[str, Any]]:
    """The plants of the file `before` that are still in `data`."""
    dataset = _parsed(data)
    haystack = (data + _inflated(data, dataset)).lower()
    without = OWN_UIDS.sub(b"", haystack)
    numbers = _numbers(dataset)
    left = []
    for plant in plants:
        if plant["search"] == "text":
            there = is_in(plant["token"], without if plant["token"].isdigit() else haystack)
        elif plant["search"] == "number":
            there = float(plant["token"]) in numbers
        else:
            there = _in_pixels(plant, before, dataset)
        if there:
            left.append(plant)
    return left


def is_in(token: str, haystack: bytes) -> bool:
    """Whether the token stands in the lower-case bytes, in any encoding."""
    return any(pattern in haystack for pattern in _patterns(token))


def _patterns(token: str) -> set[bytes]:
    if token.isascii():
        raw = token.lower().encode()
        return {raw, raw.decode().encode("utf-16-le")}
    found = set()
    for encoding in ENCODINGS:
        try:
            raw = token.encode(encoding)
        except UnicodeEncodeError:
            continue
        found.add(re.sub(rb"\x1b\$?[()]?.", b"", raw).lower() if encoding == "iso2022-jp" else raw.lower())
        found.add(token.upper().encode(encoding, "ignore").lower())
    return {raw for raw in found if len(raw) >= 4}


def _parsed(data: bytes) -> Dataset | None:
    try:
        return pydicom.dcmread(BytesIO(data), force=True)
    except FAULTS:
        return None


def _inflated(data: bytes, dataset: Dataset | None) -> bytes:
    meta = getattr(dataset, "file_meta", None)
    if meta is None or meta.get("TransferSyntaxUID") != "1.2.840.10008.1.2.1.99":
        return b""
    start = 144 + int.from_bytes(data[140:144], "little")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:])
    except zlib.error:
        return b""


def _numbers(dataset: Dataset | None) -> set[float]:
    """Every number of every numeric attribute at every depth."""
    found: set[float] = set()
    for element in _elements(dataset):
        if element.VR in NUMBERS:
            try:
                many = element.value if isinstance(element.value, list | tuple) else [element.value]
                found.update(float(value) for value in many if value not in (None, ""))
            except FAULTS:
                continue
    return found


def _elements(dataset: Dataset | None) -> Any:
    if dataset is None:
        return
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except FAULTS:
            continue
        yield element
        if element.VR == "SQ" and element.value:
            for item in element.value:
                yield from _elements(item)


def _in_pixels(plant: dict[str, Any], before: bytes, after: Dataset | None) -> bool:
    original = _parsed(before)
    try:
        one, two = decoded(original), decoded(after)
    except FAULTS:
        return False
    if plant["search"] == "bits":
        return bool(
            one.shape == two.shape and np.any((one.astype(np.int64) >> 13) & (two.astype(np.int64) >> 13) & 1)
        )
    grey = [np.asarray(pixels[0].mean(axis=-1), dtype=np.float32) for pixels in (one, two)]
    return ink_left(grey[0], grey[1], tuple(plant["box"]))


def decoded(dataset: Dataset | None) -> Any:
    """Stored values [frames, rows, columns, samples]; raises one of FAULTS where they can't be decoded."""
    if dataset is None:
        raise ValueError("no data set")
    native = (
        not dataset.file_meta.TransferSyntaxUID.is_encapsulated
        and "YBR" not in dataset.PhotometricInterpretation
    )
    frames = int(dataset.get("NumberOfFrames") or 1)
    shape = (frames, int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel") or 1))
    if native and dataset.BitsAllocated in (8, 16) and not dataset.get("PlanarConfiguration"):
        kind = np.dtype(f"u{dataset.BitsAllocated // 8}").newbyteorder(
            "<" if dataset.file_meta.TransferSyntaxUID != "1.2.840.10008.1.2.2" else ">"
        )
        return np.frombuffer(dataset.PixelData, kind)[: int(np.prod(shape))].reshape(shape)
    return np.asarray(dataset.pixel_array).reshape(shape)
