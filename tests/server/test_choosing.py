"""Runs whose study chooses a checkpoint, or ends early, by what real sites say of their validation cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fedai_server.runs import RunDatabase
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from hospitals import SITES, Change, at, make_hospitals, run_of
from post_office import Answer
from studies import small_study

from fedai.choice import best_of
from fedai.study import Study
from fedai.wire import Task

pytestmark = pytest.mark.usefixtures("quick")
LOSSES = {1: 0.5, 2: 0.2, 3: 0.4, 4: 0.3}  # of each round's checkpoint, as sites are made to tell


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def choosing(rounds: int = 4, **training: Any) -> Study:
    rule = {"choose": "best", "by": "validation_loss"}
    return small_study(
        training={"rounds": rounds, "checkpoint": rule, **training},
        rounds={"grace_s": 2, "deadline_s": 30, "waiting_s": 30},
        judgement={"local_models": False},
    )


def telling(home: SiteHome, study: Study, losses: dict[int, float] = LOSSES) -> dict[str, Change]:
    """A real site that tells of these validation losses."""
    bench = Bench(home, study, lambda: True)

    def answer(task: Task) -> Answer:
        reply = bench.answer(task, 1)
        number = task.round - 1 if task.kind == "train" else study.training.rounds
        reply.metrics["validation_loss"] = losses.get(number, 0.1)  # type: ignore[index]
        return reply

    return {"train": answer, "validate": answer}


def judged_weights(grid: Any) -> bytes:
    (task,) = [task for task in grid.sites["north"].asked if task.kind == "score"]
    return bytes(task.arrays["parameters"].tobytes())


def sent_in_round(grid: Any, number: int) -> bytes:
    (task,) = [task for task in grid.sites["north"].asked if (task.kind, task.round) == ("train", number)]
    return bytes(task.arrays["parameters"].tobytes())


def go_through(
    hospitals: dict[str, SiteHome], folder: Path, study: Study, losses: dict[int, float] = LOSSES
) -> tuple[dict[str, Any], Any]:
    grid = at(hospitals, study, **{name: telling(hospitals[name], study, losses) for name in SITES})
    _, registry, go = run_of(folder, grid, study)
    go()
    return json.loads((registry / "record.json").read_text()), grid


def test_the_best_checkpoint_is_judged_and_the_record_says_which_and_why(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    record, grid = go_through(hospitals, tmp_path, choosing())
    chosen = record["chosen"]
    assert (chosen["round"], chosen["by"], chosen["value"]) == (2, "validation_loss", pytest.approx(0.2))
    assert chosen["checkpoint"] == record["rounds"][1]["checkpoint"]
    assert (chosen["last"], chosen["last_checkpoint"]) == (4, record["rounds"][3]["checkpoint"])
    assert {n: round(v, 6) for n, v in chosen["values"].items()} == {str(n): v for n, v in LOSSES.items()}
    assert chosen["sites"] == sorted(SITES)
    assert judged_weights(grid) == sent_in_round(grid, 3)  # what round 2 had made


def test_the_last_checkpoint_is_validated_by_itself_and_no_test_case_before_the_choice(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    record, grid = go_through(hospitals, tmp_path, choosing(), {**LOSSES, 4: 0.1})
    assert record["chosen"]["round"] == 4
    kinds = [task.kind for task in grid.sites["north"].asked]
    assert kinds == ["ready", *["train"] * 4, "validate", "score", "place"]


def test_without_a_choice_no_site_is_asked_more_than_before(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    record, grid = go_through(hospitals, tmp_path, choosing(checkpoint={"choose": "last"}))
    assert record["chosen"] == {}
    assert "validate" not in {task.kind for task in grid.sites["north"].asked}


def test_training_ends_early_and_the_run_says_why(hospitals: dict[str, SiteHome], tmp_path: Path) -> None:
    study = choosing(rounds=9, early_stopping={"patience": 2})
    record, _ = go_through(hospitals, tmp_path, study)
    assert (record["state"], len(record["rounds"])) == ("finished", 5)
    assert record["reason"] == "stopped early after round 5 of 9: no better validation_loss since round 2"
    assert record["chosen"]["round"] == 5  # the last: 0.1, and only known when asked for
    assert record["models"] == ["federated"]


class Killed(BaseException):
    """As if the process had been killed."""


def test_a_run_that_was_killed_ends_early_at_the_same_round_with_the_same_choice(
    hospitals: dict[str, SiteHome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = choosing(rounds=9, early_stopping={"patience": 2})
    whole, _ = go_through(hospitals, tmp_path / "whole", study)
    grid = at(hospitals, study, **{name: telling(hospitals[name], study) for name in SITES})
    _, registry, go = run_of(tmp_path / "killed", grid, study)
    real, deadly = RunDatabase.add, ["round_closed", "last_validated", "checkpoint_chosen"]

    def kill(self: RunDatabase, name: str, kind: str, fact: dict[str, Any]) -> None:
        real(self, name, kind, fact)
        if deadly and kind == deadly[0] and fact.get("number", 5) == 5:
            deadly.pop(0)
            raise Killed

    monkeypatch.setattr(RunDatabase, "add", kill)
    for _ in range(3):
        with pytest.raises(Killed):
            go()
    go()
    record = json.loads((registry / "record.json").read_text())
    assert record["chosen"] == whole["chosen"]
    assert record["reason"] == whole["reason"]
    assert len(record["rounds"]) == 5
    assert [task.kind for task in grid.sites["north"].asked].count("validate") == 1


def test_the_choice_by_auroc_is_that_of_the_numbers_on_record(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    rule = {"choose": "best", "by": "validation_auroc"}
    study = choosing(rounds=3, checkpoint=rule, optimizer={"name": "AdamW", "learning_rate": 0.02})
    _, registry, go = run_of(tmp_path, at(hospitals, study), study)
    go()
    record = json.loads((registry / "record.json").read_text())
    third = record["rounds"][2]["validation"]
    cases = {site: told["cases"] for site, told in third.items()}
    mean = sum(third[site]["auroc"][0] * cases[site] for site in third) / sum(cases.values())
    values = {int(number): value for number, value in record["chosen"]["values"].items()}
    assert values[2] == pytest.approx(mean)
    assert record["chosen"]["round"] == best_of(values, "validation_auroc")
