"""Runs in which some sites are drawn for each round; and a simulation of them, bit by bit the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fedai_server.cli.run import _line, _round_lines
from fedai_site.home import SiteHome
from fedai_site.simulated import open_homes
from flwr.app import Error
from hospitals import SITES, at, make_hospitals, run_of
from studies import small_study

from fedai import wire
from fedai.run_sections import table_of_rounds
from fedai.simulate import simulate

pytestmark = pytest.mark.usefixtures("quick")
TRAINING = {"rounds": 3, "optimizer": {"name": "AdamW", "learning_rate": 0.02}}
RULES = {"grace_s": 2, "deadline_s": 30, "waiting_s": 30}
DRAWING = small_study(
    training=TRAINING,
    rounds={**RULES, "quorum": 1, "selection": {"by": "size", "number": 2}},
    judgement={"local_models": False},
)
CHOOSING = small_study(
    training={**TRAINING, "checkpoint": {"choose": "best", "by": "validation_auroc"}},
    rounds=RULES,
    judgement={"local_models": False},
)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def test_sites_that_are_not_drawn_are_neither_asked_nor_late(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, DRAWING)
    _, registry, go = run_of(tmp_path, grid, DRAWING)
    go()
    record = json.loads((registry / "record.json").read_text())
    for closed in record["rounds"]:
        asked = [n for n in SITES if ("train", closed["number"]) in kinds(grid, n)]
        assert closed["answered"] == sorted(asked)
        assert closed["not_selected"] == [name for name in SITES if name not in asked]
        assert (len(asked), closed["late"], closed["refused"]) == (2, [], {})
    assert len({tuple(closed["answered"]) for closed in record["rounds"]}) > 1
    assert record["state"] == "finished"
    (one, *_) = record["rounds"]
    assert f", not selected: {one['not_selected'][0]}" in _line("round_closed", one)
    assert "not selected" in _round_lines(record)[0]
    shown = table_of_rounds(record["rounds"])
    assert shown.header[2] == "Not selected"
    assert shown.rows[0][2] == one["not_selected"][0]
    with open_homes([hospitals[name].folder for name in SITES], DRAWING, "simulation") as sites:
        simulated = simulate(DRAWING, sites, tmp_path / "simulated")
    final = next(task for task in grid.sites["north"].asked if task.kind == "score").arrays
    assert simulated.weights.parameters.tobytes() == final["parameters"].tobytes()


def kinds(grid: object, name: str) -> list[tuple[str, int]]:
    return [(task.kind, task.round) for task in grid.sites[name].asked]  # type: ignore[attr-defined]


def test_a_drawn_site_that_fails_is_named_and_the_run_is_degraded(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    no = {"train": lambda _: Error(wire.ERROR_NUMBER, "TRAINING 0123456789ab")}
    runs, _, go = run_of(tmp_path, at(hospitals, DRAWING, south=no), DRAWING)
    go()
    rounds = runs.record("small-1")["rounds"]
    failed = [closed["refused"] == {"south": "TRAINING 0123456789ab"} for closed in rounds]
    assert failed == ["south" not in closed["not_selected"] for closed in rounds]
    assert any(failed)


def test_a_simulation_chooses_as_the_run_does_to_the_bit(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, CHOOSING)
    runs, _, go = run_of(tmp_path, grid, CHOOSING)
    go()
    chosen = runs.record("small-1")["chosen"]
    with open_homes([hospitals[name].folder for name in SITES], CHOOSING, "simulation") as sites:
        simulated = simulate(CHOOSING, sites, tmp_path / "simulated")
    assert dict(simulated.chosen) == {k: v for k, v in chosen.items() if "checkpoint" not in k}
    final = next(task for task in grid.sites["north"].asked if task.kind == "score").arrays
    assert simulated.weights.parameters.tobytes() == final["parameters"].tobytes()
