"""Wall 1: a bundle that carries Python is refused at the site and not one of its lines runs there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from federation_sites import SITES, Federation
from hostile_app import start_hostile, task_head
from received import requests_in, runs_asked_for

from fedai import wire

pytestmark = pytest.mark.federation


def test_a_bundle_that_carries_python_is_refused_and_not_one_of_its_lines_runs(
    federation: Federation, tmp_path: Path
) -> None:
    study = federation.study("bundled")
    hostile = start_hostile(federation, tmp_path / "marker", study.canonical())
    kinds = ("query", "train", "evaluate")
    answers = hostile.ask([(site, kind, task_head(study.sha256)) for site in SITES for kind in kinds])
    assert [code for code, _ in answers] == [wire.ERROR_NUMBER] * 9
    assert all(re.fullmatch(r"REFUSED [0-9a-f]{12}", reason) for _, reason in answers)
    assert not (tmp_path / "marker").exists()
    assert hostile.run_id in runs_asked_for(federation.received, "get-run")
    assert hostile.run_id not in runs_asked_for(federation.received, "pull-object")
    for site, (_, reason) in zip(SITES, answers[::3], strict=True):
        home = federation.sites[site].home
        assert reason.split()[1] in home.log.read_text()
        assert "bundle that is not this release's" in home.log.read_text()


def test_a_server_that_lies_about_the_bundle_still_gets_nothing_run(
    federation: Federation, tmp_path: Path
) -> None:
    study = federation.study("lying")
    hostile = start_hostile(federation, tmp_path / "marker", study.canonical())
    hostile.lie_about_the_bundle()
    altered = federation.study("lying-too", approved_by=())
    odd = [
        ("query", task_head(altered.sha256)),  # another study than the run's
        ("query", task_head(study.sha256, run="../../keys")),
        ("query", task_head(study.sha256, kind="keys")),
        ("query", task_head(study.sha256, kind="__init__")),
        ("query", task_head(study.sha256, kind=["ready"])),
        ("query", task_head(study.sha256, round="1")),
        ("query", task_head(study.sha256, model=7)),
        ("query", task_head(study.sha256, models=["../../x"])),
        ("query", task_head(study.sha256, network="monai.networks.nets.UNet")),
        ("train", task_head(study.sha256, kind="train", layout="{}", round=1)),
        ("evaluate", task_head(study.sha256, kind="place", models=["../../../etc/passwd"])),
        ("query", "{"),
        ("query", "[" * 100_000),
    ]
    answers = hostile.ask([("north", *one) for one in odd])
    got = {head[:150]: answer for (_, head), answer in zip(odd, answers, strict=True)}
    refused = {
        head: answer and re.fullmatch(r"REFUSED [0-9a-f]{12}", answer[1]) for head, answer in got.items()
    }
    assert all(refused.values()), got
    assert not (tmp_path / "marker").exists()
    assert hostile.run_id in runs_asked_for(federation.received, "pull-object")  # the lie was believed so far


def test_no_agent_ever_asks_for_a_bundle(federation: Federation, whole_run: object) -> None:
    calls = {request.call for request in requests_in(federation.received)}
    assert {
        "activate-node",
        "get-run",
        "pull-messages",
        "push-messages",
        "push-object",
        "pull-object",
    } <= calls
    assert "get-fab" not in calls
