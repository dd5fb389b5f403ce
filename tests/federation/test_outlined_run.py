"""A run of a segmentation with real processes, from SEG files to the table and the report."""

from __future__ import annotations

import json
import re
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

pytestmark = pytest.mark.federation
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
        words = ["site", "add-data", str(site.home.folder), str(images), "--no-pixels", "--json"]
        told = fedai(federation, *words, "--structure", "Hong GTV=lesion")
        assert (told["masks"], told["masked"], told["quarantined"]) == (PATIENTS, PATIENTS, {})
        admit(federation.home, name, site.home.public_key)
        site.start()
    rounds = {"quorum": 2}
    training = {"rounds": 3}
    study = outline_study(
        sites=list(SITES), rounds=rounds, training=training, judgement={"local_models": True}
    )
    for name in SITES:
        approvals.approve(federation.sites[name].home.approvals, study, "tests")
    return federation.run(study, seconds=480)


def fedai(federation: Federation, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [*fedai_command(), *words], capture_output=True, text=True, timeout=180, check=False,
        env=environment(federation.witness),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in words else {"text": done.stdout}


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
    found = fedai(federation, "compare", "outlines-1", "--home", str(federation.home.folder), "--json")
    assert found.items() >= json.loads(json.dumps(told)).items()
    (pooled,) = found["models"]["federated"]["pooled"]
    tested = sum(judgement.scores[site]["federated"].found.sum() for site in SITES)
    assert pooled["dice_patients"] == pooled["dice_cases"] == tested
    assert 0.5 < pooled["dice_ci95"][0] < pooled["dice"] < pooled["dice_ci95"][1] < 1
    assert sum(pooled["found"].values()) == tested
    text = fedai(federation, "compare", "outlines-1", "--home", str(federation.home.folder))["text"]
    assert f"{pooled['dice']:.3f} ({pooled['dice_ci95'][0]:.3f} to" in text
    asked = {(one["cases_of"], one["b"], one["measure"]) for one in found["differences"]}
    assert {("pooled", b, measure) for b in MODELS[1:] for measure in MEASURES} <= asked


def test_the_report_is_one_file_with_the_same_numbers(
    outlined_run: object, federation: Federation, tmp_path: Path
) -> None:
    out, csv = tmp_path / "report.html", tmp_path / "numbers.csv"
    words = ["report", "outlines-1", "--home", str(federation.home.folder), "--out", str(out)]
    told = fedai(federation, *words, "--csv", str(csv), "--json")
    (pooled,) = told["comparison"]["models"]["federated"]["pooled"]
    page = out.read_text()
    assert f"mean Dice of {pooled['dice']:.3f}" in page
    assert "ROC" not in page
    assert not re.search(r"(src|href)=.?http", page)
    rows = [line.split(",") for line in csv.read_text().splitlines()]
    (dice,) = [row for row in rows if row[:5] == ["federated", "", "pooled", "lesion", "dice"]]
    assert float(dice[5]) == pooled["dice"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare", "outlines-1", "--margin", "0.05"], "--margin is of an AUROC"),
        (["model", "card", "outlines-1", "federated", "--out", "card.md"], "is for classifications alone"),
    ],
)
def test_what_is_of_scores_is_refused_plainly(
    outlined_run: object, federation: Federation, words: list[str], told: str
) -> None:
    done = subprocess.run(
        [*fedai_command(), *words, "--home", str(federation.home.folder)], capture_output=True, text=True,
        timeout=120, check=False, env=environment(federation.witness),
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr


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
