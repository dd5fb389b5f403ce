"""A run of a segmentation with real processes, from SEG files to the table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_server.admission import admit
from fedai_site import approvals
from federation_processes import fedai_command
from federation_sites import Federation, environment
from outlined_sites import outline_study, write_patients
from received import objects_in

from fedai.outline_results import compare_outlines
from fedai.outlines import MEASURES
from fedai.record import read_outlines

pytestmark = [pytest.mark.federation, pytest.mark.slow]
SITES = ("outlined-a", "outlined-b")
PATIENTS = 30
MODELS = ["federated", "local:outlined-a", "local:outlined-b"]


@pytest.fixture(scope="module")
def planted() -> list[str]:
    return []


@pytest.fixture(scope="module")
def outlined_run(federation: Federation, planted: list[str]) -> dict[str, Any]:
    """The record of a run over two sites whose masks came from SEG files."""
    for seed, name in enumerate(SITES, start=5):
        site = federation.prepare_site(name)
        images = federation.folder / "hospitals" / name
        planted += write_patients(images, name, PATIENTS, seed=seed)
        words = ["site", "add-data", str(site.home.folder), str(images), "--no-pixels"]
        told = fedai(federation, *words, "--structure", "Hong GTV=lesion")
        assert (told["masks"], told["masked"], told["quarantined"]) == (PATIENTS, PATIENTS, {})
        admit(federation.home, name, site.home.public_key)
        site.start()
    rounds = {"quorum": 2, "deadline_s": 300, "waiting_s": 200}
    training = {"rounds": 3}
    study = outline_study(
        sites=list(SITES), rounds=rounds, training=training, judgement={"local_models": True}
    )
    for name in SITES:
        approvals.approve(federation.sites[name].home.approvals, study, "tests")
    record = federation.run(study, seconds=480)
    for name in SITES:  # idle, they would take time of others
        assert federation.sites[name].stop() == 0
    return record


def fedai(federation: Federation, *words: str) -> dict[str, Any]:
    """A command's JSON."""
    done = subprocess.run(
        [*fedai_command(), *words, "--json"], capture_output=True, text=True, timeout=180, check=False,
        env=environment(federation.witness),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def folder_of(federation: Federation) -> Path:
    return federation.home.folder / "registry" / "outlines-1"


def test_the_record_is_complete(outlined_run: dict[str, Any]) -> None:
    assert outlined_run["state"] == "finished"
    assert [closed["number"] for closed in outlined_run["rounds"]] == [1, 2, 3]
    assert outlined_run["models"] == MODELS
    for site in SITES:
        cohort = outlined_run["cohorts"][site]
        assert cohort["flow"]["found"] == cohort["flow"]["used"] == PATIENTS
        assert all(split["classes"][0] == 0 for split in cohort["splits"].values()), "none is empty"
        dice = [closed["validation"][site]["dice"][0] for closed in outlined_run["rounds"]]
        assert dice[-1] > dice[0]


def test_the_models_are_judged_and_the_table_says_what_the_judgement_does(
    outlined_run: object, federation: Federation
) -> None:
    judgement = read_outlines(folder_of(federation))
    assert judgement is not None
    told = compare_outlines(judgement).to_json()
    found = fedai(federation, "compare", "outlines-1", "--home", str(federation.home.folder))
    assert found.items() >= json.loads(json.dumps(told)).items()
    (pooled,) = found["models"]["federated"]["pooled"]
    tested = sum(judgement.scores[site]["federated"].found.sum() for site in SITES)
    assert pooled["dice_patients"] == pooled["dice_cases"] == tested
    assert 0.5 < pooled["dice_ci95"][0] < pooled["dice"] < pooled["dice_ci95"][1] < 1
    assert sum(pooled["found"].values()) == tested
    asked = {(one["cases_of"], one["b"], one["measure"]) for one in found["differences"]}
    assert {("pooled", b, measure) for b in MODELS[1:] for measure in MEASURES} <= asked


def test_no_mask_and_no_name_left_the_sites(
    outlined_run: object, federation: Federation, planted: list[str]
) -> None:
    received = b"\0".join(content for _, _, content in objects_in(federation.received))
    assert not [word for word in [*planted, "Hong GTV"] if word.encode() in received]
    for name in SITES:
        home = federation.sites[name].home
        masks = [np.load(path) for path in (home.folder / "masks").rglob("*.npy")]
        masks += [one for path in (home.folder / "cache").rglob("*.npy") if (one := np.load(path)).max() == 1]
        assert len(masks) == 2 * PATIENTS
        assert not [mask for mask in masks if mask.tobytes() in received]
        assert [line["kind"] for line in federation.sites[name].ledger("outlines-1")].count("score") == 4
