"""The report as a reader gets it: opened and printed by a real browser. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, measure, print_a4, requests_of
from federations import Cases, draw_cases, judgement_of
from outline_runs import LEVELS, draw_run, judge, write_outlined
from runs import BINARY, SITES, SIX, draw_judgement, draw_record

from fedai.cli.app import run as fedai
from fedai.judgement import Judgement

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
NAMES = ["binary", "six", "two runs", "outlines", "two outlined runs"]
STUDY = {
    "name": "cxr-nodule",
    "purpose": {"statement": "Find nodules.", "commercial_interest": False, "sponsors": ["A foundation"],
                "ethics": [{"board": "IRB", "number": "2026-1", "expires": "2027-01-01"}]},
    "task": {"classes": list(BINARY)},
    "cohort": {"modality": ["CR", "DX"]},
    "preprocessing": {"image_size": [64, 64]},
    "network": {"name": "ResNet"},
    "strategy": {"name": "FedAvg"},
    "training": {"rounds": 5, "local_epochs": 8, "batch_size": 8, "seed": 0,
                 "optimizer": {"name": "AdamW", "learning_rate": 0.001},
                 "loss": {"name": "CrossEntropy", "balanced": True}, "augmentation": [{"name": "RandFlip"}]},
}  # fmt: skip


def write_run(folder: Path, judgement: Judgement, classes: tuple[str, ...] = BINARY) -> str:
    folder.mkdir(parents=True)
    study = {**STUDY, "task": {"classes": list(classes)}}
    record = {**draw_record(classes), "run": folder.name, "study": study}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "judgement.json").write_text(json.dumps(judgement.to_json()))
    return str(folder)


def two_runs(folder: Path) -> list[str]:
    """Three local models and a federated one by FedAvg, FedBN's, and a centralised one, on the same cases."""
    rng, wanted = np.random.default_rng(7), {"fedavg": ("federated", "centralised"), "fedbn": ("federated",)}
    skill = {"fedavg/federated": 1.6, "fedavg/centralised": 1.9, "fedbn/federated": 1.7}
    skill |= {f"{run}/local:{site}": 1.0 for run in wanted for site in SITES}
    drawn = {site: draw_cases(rng, site, 70, skill=skill) for site in SITES}
    paths = []
    for run in wanted:
        parts = {
            site: Cases(
                {m.partition("/")[2]: s for m, s in c.scores.items() if m.startswith(f"{run}/")},
                c.labels,
                c.patients,
            )
            for site, c in drawn.items()
        }
        paths.append(write_run(folder / run, judgement_of(parts, BINARY)))
    return paths


def two_outlined_runs(folder: Path) -> list[str]:
    """Of two structures, on the same cases; what south tells of HD95 is withheld."""
    names = ("lesion", "pleural-effusion")
    levels = {
        f"{run}/{model}": level - gap
        for run, gap in (("a", 0), ("b", 0.04))
        for model, level in LEVELS.items()
    }
    drawn = draw_run(levels, structures=2)
    for values, found in drawn["south"][0].values():
        values[2:, :, 2], found[2:] = np.nan, np.minimum(found[2:], 2)
        values[2:, :, :2] = np.where(found[2:, :, None] > 0, 0.0, np.nan)
        values[2:, :, 3] = np.where(found[2:] > 0, np.nan_to_num(values[2:, :, 3]), np.nan)
    paths = []
    for run, name in (("a", "cxr-lesion-1"), ("b", "cxr-lesion-with-more-2")):
        parts = {
            site: ({m.partition("/")[2]: of for m, of in made.items() if m.startswith(f"{run}/")}, patients)
            for site, (made, patients) in drawn.items()
        }
        paths.append(str(write_outlined(folder / name, judge(parts, names))))
    return paths


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of one run with two classes, of one with six, and of two runs on the same cases; of a
    segmentation, and of two.
    """
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "binary": [write_run(folder / "one" / "cxr-nodule-1", draw_judgement(patients=70))],
        "six": [write_run(folder / "two" / "body-part-1", draw_judgement(SIX, patients=70), SIX)],
        "two runs": two_runs(folder / "three"),
        "outlines": [str(write_outlined(folder / "four" / "cxr-lesion-1", judge(draw_run())))],
        "two outlined runs": two_outlined_runs(folder / "five"),
    }
    made = {}
    for name, paths in runs.items():
        made[name] = folder / f"{name}.html"
        assert fedai(["report", *paths, "--out", str(made[name])]) == 0
    return made


def test_the_browser_would_tell_of_requests_and_errors(tmp_path: Path) -> None:
    """A page that does what a report must not do."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<img src="http://elsewhere.invalid/x.png"><script>console.error("odd"); nothing()</script>'
    )
    asked, said = requests_of(bad, tmp_path)
    assert any("elsewhere.invalid" in url for url in asked)
    assert any("odd" in line for line in said)
    assert any("not defined" in line for line in said)
    bad.write_text(
        '<body><svg viewBox="0 0 50 20" width="50"><text x="30" y="15">far too long</text></svg></body>'
    )
    assert measure(bad, tmp_path, 860)["faults"] == ["outside its picture: far too long"]


@pytest.mark.parametrize("name", NAMES)
def test_a_report_asks_nothing_of_the_network_and_has_no_errors(
    name: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    assert requests_of(pages[name], tmp_path) == ([], [])


@pytest.mark.parametrize("name", NAMES)
def test_no_words_of_a_report_are_cut_off_or_over_others(
    name: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    found = measure(pages[name], tmp_path, 860)
    assert found["faults"] == []
    assert found["pictures"] > 12


def test_a_report_is_printed_on_a4(pages: dict[str, Path], tmp_path: Path) -> None:
    for name in ("binary", "outlines"):
        sizes, number = print_a4(pages[name], tmp_path)
        assert sizes == {(595, 842)}
        assert 5 < number < 25
