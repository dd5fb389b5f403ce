from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fedai_server import following
from fedai_server.following import follow
from fedai_server.runs import RunDatabase
from federation_processes import make_home
from studies import small_study

from fedai.cli.app import run as fedai
from fedai.errors import ConfigError
from fedai.events import RoundClosed, RunEnded, SiteReady

READER = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

Capture = pytest.CaptureFixture[str]
SPLITS = {split: {"patients": 2, "cases": 4, "classes": [2, 2]} for split in ("train", "validation", "test")}


def ready(site: str) -> dict[str, Any]:
    return {"site": site, "cohort": {"splits": SPLITS}, "versions": {"fedai": "0.1.0"}}


def closed(number: int, late: tuple[str, ...] = ()) -> dict[str, Any]:
    """A round's fact as the server writes it; south has no validation cases."""
    answered = [site for site in ("north", "south") if site not in late]
    north = {"loss": 0.7 - 0.1 * number, "auroc": [None, 0.5 + 0.1 * number], "cases": 4}
    south = {"loss": None, "auroc": [None, None], "cases": 0}
    return {
        "number": number,
        "answered": answered,
        "late": list(late),
        "refused": {"east": "DATA 0123456789ab"},
        "seconds": 1.5,
        "checkpoint": "00",
        "cases": dict.fromkeys(answered, 4),
        "train_loss": dict.fromkeys(answered, 0.9 - 0.1 * number),
        "validation": {"north": north, "south": south},
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home").folder


@pytest.fixture
def runs(home: Path) -> RunDatabase:
    """A run of one closed round."""
    database = RunDatabase(home / "runs.sqlite")
    name = database.plan(small_study())
    for site in ("north", "south"):
        database.add(name, "site_ready", ready(site))
    database.add(name, "ledger_head", {"site": "north", "head": {}, "contradiction": ""})
    database.add(name, "round_closed", closed(1))
    database.move(name, "running")
    return database


def test_a_run_is_followed_from_its_first_event_to_its_end_as_things_happen(
    home: Path, runs: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.02)
    events = follow(runs, home / "registry", "small-1")
    first = [next(events) for _ in range(3)]
    assert [type(event) for event in first] == [SiteReady, SiteReady, RoundClosed]

    def go_on() -> None:
        time.sleep(0.3)
        runs.add("small-1", "round_closed", closed(2, late=("south",)))
        runs.move("small-1", "failed", "why")

    thread = threading.Thread(target=go_on)
    thread.start()
    *rounds, end = list(events)
    thread.join()
    assert [(event.number, event.late) for event in rounds if isinstance(event, RoundClosed)] == [
        (2, ("south",))
    ]
    assert isinstance(end, RunEnded)
    assert (end.state, end.reason) == ("failed", "why")


def test_a_sites_numbers_are_those_it_told_and_what_it_has_not_is_left_out(
    home: Path, runs: RunDatabase
) -> None:
    event = list(follow_to_the_end(home, runs))[2]
    assert isinstance(event, RoundClosed)
    north = {"cases": 4.0, "train_loss": 0.8, "validation_loss": 0.6, "validation_auroc": 0.6}
    assert event.numbers == {"north": pytest.approx(north), "south": {"cases": 4.0, "train_loss": 0.8}}
    assert event.refused == ("east",)


def follow_to_the_end(home: Path, runs: RunDatabase) -> list[Any]:
    runs.move("small-1", "finished")
    return list(follow(runs, home / "registry", "small-1"))


def test_whoever_follows_wants_to_be_told_where_to_write(
    home: Path, runs: RunDatabase, capsys: Capture
) -> None:
    assert fedai(["run", "follow", "small-1", "--home", str(home)]) == 2
    assert "--tensorboard DIR or --mlflow URI|DIR" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_no_run_to_follow(home: Path, runs: RunDatabase) -> None:
    with pytest.raises(ConfigError, match="no run 'other-1'"):
        next(follow(runs, home / "registry", "other-1"))


def refuse(*told: object, **more: object) -> None:
    raise AssertionError(f"a connection: {told}")


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (round, value) of an event file, by TensorBoard's own reader."""
    read = READER.EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_a_followed_run_with_a_curve_for_each_site(
    home: Path, runs: RunDatabase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (socket, "create_connection")):
        monkeypatch.setattr(owner, name, refuse)
    runs.add("small-1", "round_closed", closed(2, late=("south",)))
    runs.move("small-1", "finished")
    words = ["run", "follow", "small-1", "--home", str(home), "--tensorboard", str(tmp_path / "board")]
    assert fedai(words) == 0
    board = tmp_path / "board" / "small-1"
    assert points(board / "north")["round/train_loss"] == [(1, pytest.approx(0.8)), (2, pytest.approx(0.7))]
    assert points(board / "south")["round/train_loss"] == [(1, pytest.approx(0.8))]
    assert points(board)["round/answered"] == [(1, 2.0), (2, 1.0)]
    assert points(board)["round/late"] == [(1, 0.0), (2, 1.0)]
    assert fedai(words) == 2
    assert "is there already" in capsys.readouterr().err


def test_mlflow_has_a_followed_run_and_its_sites_in_a_folder(
    home: Path, runs: RunDatabase, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (socket, "create_connection")):
        monkeypatch.setattr(owner, name, refuse)
    runs.move("small-1", "finished")
    board = tmp_path / "board"
    words = ["run", "follow", "small-1", "--home", str(home), "--mlflow", str(board), "--json"]
    assert fedai(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.items() >= {"run": "small-1", "mlflow": str(board), "events": 4}.items()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{board / 'mlflow.db'}")
    made = client.search_runs([client.get_experiment_by_name("fedai").experiment_id])
    assert sorted(run.info.run_name for run in made) == ["north", "small-1", "south"]
    assert {run.info.status for run in made} == {"FINISHED"}
    assert fedai(words) == 2
    assert "already" in capsys.readouterr().out
