"""Whole runs of real sites under the strategies that ask more of rounds or sites than a mean."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.home import SiteHome
from fedai_site.simulated import open_homes
from flwr.app import Error
from hospitals import SITES, Change, at, make_hospitals, run_of
from post_office import PostOffice
from studies import small_study

from fedai import wire
from fedai.checkpoint import checkpoint_sha256, load_state, save_checkpoint
from fedai.errors import OutOfTime
from fedai.judgement import Judgement
from fedai.simulate import simulate
from fedai.study import Study
from fedai.wire import Reply, Task

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def study_of(name: str, rounds: int = 2, network: str = "group", **more: Any) -> Study:
    optimizer = {"name": "SGD", "momentum": 0.0, "learning_rate": 0.05}
    return small_study(
        strategy={"name": name, **more},
        sites=list(SITES),
        network={"normalization": network},
        training={"rounds": rounds, "optimizer": optimizer},
        rounds={"grace_s": 2, "deadline_s": 20, "waiting_s": 20},
        judgement={"local_models": False},
    )


def trained(grid: PostOffice) -> dict[str, list[int]]:
    return {name: [t.round for t in site.asked if t.kind == "train"] for name, site in grid.sites.items()}


def test_scaffolds_control_variates_go_down_and_up(hospitals: dict[str, SiteHome], tmp_path: Path) -> None:
    study = study_of("SCAFFOLD")
    grid = at(hospitals, study)
    changes: dict[str, np.ndarray] = {}
    for name, site in grid.sites.items():
        work = site.script

        def listen(task: Task, name: str = name, work: Change = work) -> Any:
            reply = work(task)
            if isinstance(reply, Reply) and task.round == 1:
                changes[name] = reply.arrays["control"].astype(np.float64)
            return reply

        site.script = listen
    _, registry, go = run_of(tmp_path, grid, study)
    go()
    told = [task.arrays["control"] for task in grid.sites["north"].asked if task.kind == "train"]
    assert not told[0].any()
    mean = sum(changes.values()) / 3
    np.testing.assert_allclose(load_state(registry / "round-0001")["control"], mean, atol=1e-12)
    np.testing.assert_allclose(told[1], mean, rtol=1e-6)
    assert json.loads((registry / "record.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    "name",
    ["FedAvg", "FedBN", "SCAFFOLD", "FedDyn", "qFedAvg", "Ditto", "FedRep", "Cyclic"],
)
def test_a_simulation_over_the_same_homes_ends_with_the_same_weights_to_the_bit(
    name: str, hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = study_of(name, network="as_built")
    _, registry, go = run_of(tmp_path, at(hospitals, study, run_id=10), study)
    go()
    with open_homes([home.folder for home in hospitals.values()], study, "simulation") as homes:
        simulated = simulate(study, homes, tmp_path / "sites")
    digest = save_checkpoint(tmp_path / "simulated", simulated.weights, simulated.layout)
    assert digest == checkpoint_sha256(registry / "round-0002") != checkpoint_sha256(registry / "round-0001")
    judged = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    for site, models in judged.scores.items():
        histogram = models["federated"].histogram
        assert histogram.auroc().tolist() == simulated.scores[site].tolist()


def test_under_cyclic_each_round_is_of_the_next_site(hospitals: dict[str, SiteHome], tmp_path: Path) -> None:
    study = study_of("Cyclic", rounds=4)
    grid = at(hospitals, study)
    runs, _registry, go = run_of(tmp_path, grid, study)
    go()
    assert trained(grid) == {"north": [1, 4], "east": [2], "south": [3]}
    assert [fact["answered"] for fact in runs.record("small-1")["rounds"]] == [
        ["north"], ["east"], ["south"], ["north"],
    ]  # fmt: skip


def no(_: Task) -> Error:
    return Error(wire.ERROR_NUMBER, "TRAINING 0123456789ab")


def test_under_cyclic_a_site_that_fails_is_named_and_the_next_takes_its_turn(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = study_of("Cyclic")
    grid = at(hospitals, study, north={"train": no})
    runs, _registry, go = run_of(tmp_path, grid, study)
    go()
    first, second = runs.record("small-1")["rounds"]
    assert (first["answered"], first["refused"]) == (["east"], {"north": "TRAINING 0123456789ab"})
    assert (second["answered"], second["refused"]) == (["east"], {})


def test_under_cyclic_a_round_that_no_site_trains_ends_the_run(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = study_of("Cyclic")
    _, _, go = run_of(tmp_path, at(hospitals, study, **{name: {"train": no} for name in SITES}), study)
    with pytest.raises(OutOfTime, match=r"closed with 0 of 1 answers.*north \(.*east \(.*south \("):
        go()


def test_an_update_without_its_control_variate_is_refused(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = study_of("SCAFFOLD", rounds=1)
    grid = at(hospitals, study)
    work = grid.sites["north"].script

    def lacking(task: Task) -> Any:
        reply = work(task)
        if not isinstance(reply, Reply) or task.kind != "train":
            return reply
        return dataclasses.replace(reply, arrays={k: v for k, v in reply.arrays.items() if k != "control"})

    grid.sites["north"].script = lacking
    runs, _, go = run_of(tmp_path, grid, study)
    go()
    (first,) = runs.record("small-1")["rounds"]
    assert "missing: control" in first["refused"]["north"]
