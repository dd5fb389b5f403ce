"""Invented records of runs, as the server's database gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from federations import Cases, draw_cases, judgement_of
from numpy.typing import NDArray

from fedai.judgement import Judgement
from fedai.subgroups import Subgroup

BINARY = ("normal", "nodule")
SIX = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
SITES = ("north", "east", "south")
SKILL = {"federated": 2.1, "local:north": 1.4, "local:east": 0.9, "local:south": 1.1, "centralised": 2.3}


def draw_sites(classes: tuple[str, ...] = BINARY, *, patients: int = 45, seed: int = 4) -> dict[str, Cases]:
    rng = np.random.default_rng(seed)
    skill = SKILL if len(classes) == 2 else {m: d + 1.5 for m, d in SKILL.items()}
    return {
        s: draw_cases(rng, s, patients + 10 * i, skill=skill, classes=len(classes), prevalence=0.3 + 0.1 * i)
        for i, s in enumerate(SITES)
    }


def draw_judgement(classes: tuple[str, ...] = BINARY, *, patients: int = 45, seed: int = 4) -> Judgement:
    return judgement_of(draw_sites(classes, patients=patients, seed=seed), classes)


LEVELS = {"sex": ("female", "male", "other"), "age_band": ("under 60", "60 and older")}


def level_in(variable: str, patient: str) -> str:
    """Of an invented patient: two thirds are women; south tells of no age, and nobody is of another sex."""
    number = int(patient.rpartition("-")[2])
    if variable == "sex":
        return "male" if number % 3 == 0 else "female"
    return "" if patient.startswith("south") else LEVELS["age_band"][number % 2]


def of_level(cases: Cases, variable: str, level: str) -> NDArray[np.bool_]:
    return np.array([level_in(variable, patient) == level for patient in cases.patients])


def draw_with_subgroups(classes: tuple[str, ...] = BINARY, *, patients: int = 45, seed: int = 4) -> Judgement:
    """The same judgement, in which sites tell of subgroups too."""
    sites = draw_sites(classes, patients=patients, seed=seed)
    judgement = judgement_of(sites, classes)
    levels = [(variable, level) for variable, of in LEVELS.items() for level in of]

    def told(cases: Cases, model: str) -> tuple[Subgroup, ...]:
        cut = [of_level(cases, *one) for one in levels]
        names = np.array(cases.patients)
        parts = [(cases.scores[model][of], cases.labels[of], names[of].tolist()) for of in cut]
        return tuple(Subgroup.of(*part, judgement.threshold) for part in parts)

    subgroups = {site: {m: told(cases, m) for m in judgement.models} for site, cases in sites.items()}
    return replace(judgement, levels=LEVELS, subgroups=subgroups)


def draw_record(classes: tuple[str, ...] = BINARY, *, rounds: int = 5, seed: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "run": "cxr-nodule-1" if len(classes) == 2 else "body-part-1",
        "study_hash": "3b1f" * 16,
        "study": {
            "name": "cxr-nodule",
            "purpose": "Find nodules on chest radiographs.",
            "task": {"classes": list(classes)},
        },
        "state": "finished",
        "reason": "",
        "started": "2026-03-04T09:15:00+00:00",
        "seconds": 412.0,
        "versions": {"fedai": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "monai": "1.6.1"},
        "cohorts": {site: draw_cohort(rng, len(classes)) for site in SITES},
        "rounds": [draw_round(rng, n, classes) for n in range(1, rounds + 1)],
        "messages": [],
        "models": list(SKILL),
    }


def draw_cohort(rng: np.random.Generator, classes: int) -> dict[str, Any]:
    found = int(rng.integers(230, 290))
    excluded = {
        "quarantined": 4,
        "unlabelled": int(rng.integers(3, 12)),
        "other_modality": 2,
        "duplicate": 1,
    }
    down = np.cumsum([0, 5, 0, excluded["unlabelled"], 2, 0])
    flow = dict(
        zip(
            ("found", "deidentified", "consented", "labelled", "eligible", "used"),
            map(int, found - down),
            strict=True,
        )
    )
    return {"flow": flow, "excluded": excluded, "splits": draw_splits(rng, flow["used"], classes)}


def draw_splits(rng: np.random.Generator, used: int, classes: int) -> dict[str, Any]:
    sizes = {"train": int(used * 0.6), "validation": int(used * 0.15)}
    sizes["test"] = used - sum(sizes.values())
    return {
        name: {
            "patients": n // 2,
            "cases": n,
            "classes": rng.multinomial(n, [1 / classes] * classes).tolist(),
        }
        for name, n in sizes.items()
    }


def draw_round(rng: np.random.Generator, number: int, classes: tuple[str, ...]) -> dict[str, Any]:
    late = ["south"] if number == 3 else []
    answered = [s for s in SITES if s not in late]
    k = 1 if len(classes) == 2 else len(classes)
    level = 0.92 - 0.3 * 0.55**number

    def judged() -> dict[str, Any]:
        auroc = (level + rng.normal(0, 0.015, k)).tolist()
        return {"loss": 0.7 * 0.8**number, "auroc": auroc, "cases": 40}

    return {
        "number": number,
        "answered": answered,
        "late": late,
        "refused": {},
        "seconds": float(rng.uniform(8, 12)),
        "cases": dict.fromkeys(answered, 150),
        "train_loss": {s: float(0.69 * 0.82**number + rng.normal(0, 0.01)) for s in answered},
        "validation": {s: judged() for s in answered},
        "checkpoint": f"{number:x}a7f" * 16,
    }
