"""On the demo's data: local models, one by FedAvg, one by FedBN and a centralised one, in one report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import CHROMIUM, measure, print_a4, requests_of
from federation_processes import is_alive, wait_for

from fedai.study import read_study

pytestmark = [pytest.mark.federation, pytest.mark.slow]
MODELS = ("federated", "centralised", "local:north", "local:east", "local:south")


def fedai(*words: object) -> str:
    command = [sys.executable, "-m", "fedai.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The demo as users run it, its server and its sites still there."""
    folder = tmp_path_factory.mktemp("compared") / "demo"
    told = json.loads(fedai("demo", "--keep", "--json", "--out", folder))
    yield {**told, "folder": folder}
    for pid in reversed(told["processes"].values()):
        os.kill(pid, signal.SIGTERM)
    pids = told["processes"].values()
    wait_for(lambda: not any(map(is_alive, pids)), 60, "the end of the demo's processes")


@pytest.fixture(scope="module")
def runs(demo: dict[str, Any]) -> list[str]:
    """The demo's run, and one by FedBN of the same sites, cases and settings."""
    study = yaml.safe_load((demo["folder"] / "study.yaml").read_text())
    study |= {"name": "cxr-nodule-fedbn", "strategy": {"name": "FedBN"}}
    study["judgement"]["local_models"] = False
    path = demo["folder"] / "fedbn.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    for site in read_study(path).sites:
        fedai("site", "approve", demo["folder"] / "sites" / site, path, "--by", f"engineer of {site}")
    second = json.loads(fedai("run", "start", path, "--home", demo["server_home"], "--json"))["run"]
    fedai("run", "watch", second, "--home", demo["server_home"])
    registry = Path(demo["server_home"]) / "registry"
    return [str(registry / run) for run in (demo["run"], second)]


def test_all_six_models_are_compared_on_the_same_cases(runs: list[str]) -> None:
    told = json.loads(fedai("compare", *runs, "--json"))
    first, second = (Path(run).name for run in runs)
    assert set(told["others"]) == {f"{second}/federated", *(f"{first}/{model}" for model in MODELS)}
    cases = {model["pooled"]["cases"] for model in told["others"].values()}
    assert len(cases) == 1
    pair = next(
        one for one in told["differences"] if (one["b"], one["cases_of"]) == (f"{second}/federated", "pooled")
    )
    assert pair["ci95"][0] < pair["difference"] < pair["ci95"][1]
    print(fedai("compare", *runs))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_their_report_opens_without_a_request_or_an_error_and_can_be_read(
    runs: list[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    fedai("report", *runs, "--out", report)
    assert requests_of(report, tmp_path) == ([], [])
    assert measure(report, tmp_path, 860)["faults"] == []
    assert print_a4(report, tmp_path)[0] == {(595, 842)}
