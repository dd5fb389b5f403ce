"""Invented runs of a segmentation: outlines, empty masks among them, and a folder as a server writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import SITES, draw_record
from studies import merged

from fedai.outline_judgement import OutlineJudgement
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.study import Study, read_study
from fedai.wire import MARKS

CONFIG = Path(__file__).parents[2] / "configs" / "studies" / "cxr-lesion.yaml"
LEVELS = {"federated": 0.83, "local:north": 0.78, "local:east": 0.72, "local:south": 0.7, "centralised": 0.84}
PATIENTS = {"north": 40, "east": 26, "south": 12}
Drawn = tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]], list[str]]


def draw_outlines(
    site: str, patients: int, seed: int, levels: Mapping[str, float] = LEVELS, structures: int = 1
) -> Drawn:
    """By model values [N, S, V] and who outlined what [N, S]; and patients, of whom a third have two images.

    Of a tenth of the images the reference is empty, and of some the model's outline is.
    """
    rng = np.random.default_rng(seed)
    owners = np.sort(np.concatenate([np.arange(patients), rng.integers(0, patients, patients // 3)]))
    shape = (len(owners), structures)
    ease = rng.normal(0, 0.06, (patients, structures))[owners]
    has = rng.random(shape) > 0.1
    made = {}
    for level in levels.items():
        made[level[0]] = draw_model(rng, level[1] + ease, has)
    return made, [f"{site}-{owner:03}" for owner in owners]


def draw_model(
    rng: np.random.Generator, mean: NDArray[np.float64], has: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One model's, where `has` says whether the reference outlines a structure."""
    does = np.where(has, rng.random(has.shape) > 0.04, rng.random(has.shape) > 0.7)
    found = 2 * has.astype(np.int64) + does
    dice = np.clip(mean + rng.normal(0, 0.05, has.shape), 0.02, 0.99)
    distance = np.clip(40 * (1 - dice) + rng.gamma(2, 1.5, has.shape), 0.5, None)
    error = rng.normal(-20, 120, has.shape)
    values = np.stack([dice, np.clip(dice + 0.05, 0, 1), distance, error], axis=-1)
    values[found != 3, :2] = 0.0
    values[found != 3, 2] = np.nan
    values[found == 0] = np.nan
    return values, found


def draw_run(levels: Mapping[str, float] = LEVELS, structures: int = 1, seed: int = 4) -> dict[str, Drawn]:
    """At each site."""
    return {
        site: draw_outlines(site, PATIENTS[site], seed + n, levels, structures)
        for n, site in enumerate(SITES)
    }


def judge(
    drawn: Mapping[str, Drawn], structures: Sequence[str] = ("lesion",), least: int = 3
) -> OutlineJudgement:
    """As the sites and the server make it."""
    models = tuple(next(iter(drawn.values()))[0])
    return OutlineJudgement(
        models,
        tuple(structures),
        2.0,
        {
            site: {m: OutlineScore.of(*made[m], patients, least) for m in models}
            for site, (made, patients) in drawn.items()
        },
        {
            site: OutlineLinks.of([made[m][0] for m in models], patients, site.encode(), least)
            for site, (made, patients) in drawn.items()
        },
        {site: {mark: f"{mark} of {site}" for mark in MARKS} for site in drawn},
    )


def outline_study(structures: Sequence[str] = ("lesion",)) -> Study:
    facts = json.loads(read_study(CONFIG).canonical())
    return Study.model_validate(merged(facts, {"task": {"structures": list(structures)}}))


def outline_record(structures: Sequence[str] = ("lesion",), run: str = "cxr-lesion-1") -> dict[str, Any]:
    """As a server writes it."""
    record, study, rng = draw_record(), outline_study(structures), np.random.default_rng(1)
    for closed in record["rounds"]:
        for told in closed["validation"].values():
            del told["auroc"]
            told["dice"] = (
                0.8 - 0.4 * 0.6 ** closed["number"] + rng.normal(0, 0.02, len(structures))
            ).tolist()
    return {
        **record,
        "run": run,
        "study": json.loads(study.canonical()),
        "study_hash": study.sha256,
        "versions": dict.fromkeys(SITES, record["versions"]),
        "models": list(LEVELS),
    }


def write_outlined(folder: Path, judgement: OutlineJudgement, **record: Any) -> Path:
    """The folder of the run, with weights that nobody opens."""
    folder.mkdir(parents=True)
    facts = {**outline_record(judgement.structures, folder.name), **record}
    (folder / "record.json").write_text(json.dumps(facts))
    (folder / "judgement.json").write_text(json.dumps(judgement.to_json()))
    for place in ("round-0001", "round-0005", "local-north"):
        (folder / place).mkdir()
        (folder / place / "weights.safetensors").write_bytes(place.encode())
        (folder / place / "manifest.json").write_text("{}")
    return folder
