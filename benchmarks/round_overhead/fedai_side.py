"""The rounds of fedai: three homes with invented pictures, real processes, times from database and logs."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federation import Export, Federation
from benchmarks.round_overhead.figures import Round
from fedai.demo.hospital import write_image
from fedai.errors import FederationError
from fedai.study import read_study

PATIENTS = 48
TOOK = re.compile(r"(\S+): train-(\d+)-\S* took ([0-9.]+) s")


def write_exports(folder: Path, sites: tuple[str, ...]) -> dict[str, Export]:
    """Small noise pictures, half of them brighter in the middle, one a patient."""
    return {
        site: _write_export(folder / site, site, np.random.default_rng(seed))
        for seed, site in enumerate(sites)
    }


def _write_export(folder: Path, site: str, rng: np.random.Generator) -> Export:
    rows = []
    for number in range(PATIENTS):
        pixels = rng.integers(0, 160, (64, 64), dtype=np.uint8)
        pixels[20:44, 20:44] += np.uint8(60 * (number % 2))
        patient = f"{site}-{number}"
        write_image(folder / "images" / f"{number}.dcm", pixels, patient=patient)
        rows.append((patient, ("dark", "bright")[number % 2]))
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("PatientID", "label"), *rows])
    return Export(folder / "images", labels)


def write_arrays(federation: Federation, study_path: Path, folder: Path) -> dict[str, Path]:
    """The very arrays that fedai's sites train on, as a file for each site of Flower's."""
    from fedai_site import cache, cohort

    study = read_study(study_path)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for site in federation.sites:
        splits = cohort.select(federation.home(site), study).splits
        arrays: dict[str, Any] = {}
        for split in ("train", "validation"):
            arrays[f"{split}_images"] = cache.load(federation.home(site), splits[split], study.preprocessing)
            arrays[f"{split}_labels"] = np.array([case.label for case in splits[split]], dtype=np.int64)
        written[site] = folder / f"{site}.npz"
        np.savez(written[site], **arrays)
    return written


def measure(federation: Federation, study: Path) -> list[Round]:
    """Run the study on a federation that is brought up and down for it."""
    with federation.up():
        run = federation.run(study)
    facts = federation.facts(run)
    closed = [at.timestamp() for at, kind, _ in facts if kind == "round_closed"]
    ready = max(at.timestamp() for at, kind, _ in facts if kind == "site_ready")
    logs = [(federation.home(site) / "site.log").read_text(encoding="utf-8") for site in federation.sites]
    computing = slowest(logs, run)
    if any(fact["answered"] != sorted(federation.sites) for _, kind, fact in facts if kind == "round_closed"):
        raise FederationError(f"{run}: not every site answered every round")
    walls = [end - start for start, end in zip([ready, *closed], closed, strict=False)]
    return [Round(wall, computing[number]) for number, wall in enumerate(walls, start=1)]


def slowest(logs: list[str], run: str) -> dict[int, float]:
    """Seconds of train + validate at the slowest site, by round. Raises FederationError where one lacks."""
    found: dict[int, list[float]] = {}
    for log in logs:
        for name, number, seconds in TOOK.findall(log):
            if name == run:
                found.setdefault(int(number), []).append(float(seconds))
    if any(len(seconds) != len(logs) for seconds in found.values()):
        raise FederationError(f"{run}: the sites' logs don't tell the same rounds")
    return {number: max(seconds) for number, seconds in found.items()}
