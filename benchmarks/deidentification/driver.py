"""Runs one tool over a folder, in the tool's own environment; needs nothing of this project but for ours.

    python driver.py TOOL clean IN OUT KEY [PROFILE]     mirror IN under OUT, print counts as JSON
    python driver.py TOOL speed FOLDER ROUNDS            seconds of tool and plain copy, interleaved ABBA

Each tool with its own defaults, one process, through its public interface.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom

Clean = Callable[[Path, Path], None]


def plain(key: str, profile: str) -> Clean:
    """Read and write with pydicom alone."""

    def copy(source: Path, target: Path) -> None:
        pydicom.dcmread(source, force=True).save_as(target)

    return copy


def dicognito(key: str, profile: str) -> Clean:
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer(seed=key)

    def clean(source: Path, target: Path) -> None:
        dataset = pydicom.dcmread(source, force=True)
        anonymizer.anonymize(dataset)
        dataset.save_as(target)

    return clean


def dicom_anonymizer(key: str, profile: str) -> Clean:
    """With its newest table, 2026c."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

    def rules() -> Any:
        return initialize_actions("dicomfields_2026c")

    return lambda source, target: anonymize_dicom_file(str(source), str(target), {}, True, rules)


def dcmanon(key: str, profile: str) -> Clean:
    from dcmanon import Anonymizer

    anonymizer = Anonymizer()
    return lambda source, target: void(target.write_bytes(anonymizer.anonymize(str(source))))


def dentdeid(key: str, profile: str) -> Clean:
    """Its pipeline, one file at a time; only what it calls clean counts as written.

    With the profile "table" also what it wrote into its quarantine, so that its table can be judged.
    """
    import shutil
    import tempfile

    from dentdeid.config import get_profile
    from dentdeid.pipeline import DeIdentifier

    configuration = get_profile("basic").with_(rename=False, previews=False)
    worker = DeIdentifier(configuration, key=bytes.fromhex(key))
    folder = Path(tempfile.mkdtemp())

    def clean(source: Path, target: Path) -> None:
        worker.run([source], folder)
        places = [folder / "clean", *([folder / "quarantine"] if profile == "table" else [])]
        found = [path for place in places for path in place.rglob("*") if path.is_file()]
        for path in found:
            shutil.move(path, target)
        shutil.rmtree(folder)
        if not found:
            raise RuntimeError("not clean")

    return clean


def fedai(key: str, profile: str) -> Clean:
    """The header rules of this project alone, without pixels: what the speed is measured on."""
    from fedai_site.deidentify import Deidentifier, reading, write

    try:
        from fedai_site.deidentify.profile import load_profile

        worker = Deidentifier(bytes.fromhex(key), load_profile(profile))
    except ImportError:
        worker = Deidentifier(bytes.fromhex(key))
    return lambda source, target: void(
        target.write_bytes(write(worker.clean(reading.parse(source.read_bytes()))))
    )


def void(_: object) -> None:
    """Nothing."""


TOOLS: dict[str, Callable[[str, str], Clean]] = {
    "plain": plain,
    "dicognito": dicognito,
    "dicom-anonymizer": dicom_anonymizer,
    "dcmanon": dcmanon,
    "dentdeid": dentdeid,
    "fedai": fedai,
}


def clean_folder(tool: Clean, source: Path, target: Path) -> dict[str, Any]:
    written, refused = 0, {}
    began = time.perf_counter()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            tool(path, place)
            written += 1
        except Exception as error:  # noqa: BLE001 (a tool may fail in any way it likes)
            place.unlink(missing_ok=True)
            refused[str(path.relative_to(source))] = f"{type(error).__name__}: {error}"[:200]
    return {"written": written, "refused": refused, "seconds": time.perf_counter() - began}


def speed(tool: Clean, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each round over all files: plain copy, tool, tool, plain copy, and so on."""
    copy, paths = plain("", ""), sorted(folder.glob("*.dcm"))
    target = folder.parent / "speed-out.dcm"
    seconds: dict[str, list[float]] = {"plain": [], "tool": []}
    _round(tool, paths[:5], target)
    for number in range(rounds):
        for name in ("plain", "tool") if number % 2 == 0 else ("tool", "plain"):
            seconds[name].append(_round(tool if name == "tool" else copy, paths, target))
    return {"files": len(paths), **seconds}


def _round(tool: Clean, paths: list[Path], target: Path) -> float:
    began = time.process_time()
    for path in paths:
        tool(path, target)
    return time.process_time() - began


def main(words: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    name, action, *rest = words
    if action == "speed":
        told = speed(TOOLS[name]("11" * 32, "basic"), Path(rest[0]), int(rest[1]))
    else:
        source, target, key, profile = [*rest, "basic"][:4]
        told = clean_folder(TOOLS[name](key, profile), Path(source), Path(target))
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
