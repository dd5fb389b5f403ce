from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fedai_server.cli import run as module
from fedai_server.runs import RunDatabase
from federation_processes import make_home
from studies import small_study

from fedai.cli.app import run

Capture = pytest.CaptureFixture[str]
COHORT = {
    "flow": {"found": 9, "deidentified": 8, "consented": 8, "labelled": 7, "eligible": 6, "used": 6},
    "excluded": {},
    "splits": {
        name: {"patients": 1, "cases": n, "classes": [n, 0]}
        for name, n in (("train", 4), ("validation", 1), ("test", 1))
    },
}
ROUND = {
    "number": 1,
    "answered": ["north"],
    "late": ["east"],
    "refused": {"south": "DATA 0123456789ab"},
    "seconds": 1.5,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home").folder


@pytest.fixture
def runs(home: Path) -> RunDatabase:
    """One run that has gone some way."""
    database = RunDatabase(home / "runs.sqlite")
    name = database.plan(small_study())
    database.add(name, "site_ready", {"site": "north", "cohort": COHORT, "versions": {"fedai": "0.1.0"}})
    database.add(name, "site_refused", {"site": "south", "code": "DATA 0123456789ab"})
    database.add(name, "round_closed", ROUND)
    database.move(name, "running")
    return database


def told(capsys: Capture, home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run(["run", *arguments, "--home", str(home), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_folder_that_is_no_servers_home_is_told_with_the_ways_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("FEDAI_SERVER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(["run", "list"]) == 2
    told = capsys.readouterr().err
    assert "--home" in told
    assert "FEDAI_SERVER_HOME" in told
    assert f"init {tmp_path}" not in told


def test_an_empty_home_has_no_runs(home: Path, capsys: Capture) -> None:
    assert told(capsys, home, "list") == (0, {"ok": True, "runs": []})
    assert run(["run", "list", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "no run yet\n"


def test_runs_are_listed(home: Path, runs: RunDatabase, capsys: Capture) -> None:
    _, listed = told(capsys, home, "list")
    assert [(one["run"], one["state"], one["study_hash"]) for one in listed["runs"]] == [
        ("small-1", "running", small_study().sha256)
    ]
    assert run(["run", "list", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("small-1  running")


def test_a_run_is_shown_with_its_cohorts_rounds_and_refusals(
    home: Path, runs: RunDatabase, capsys: Capture
) -> None:
    _, record = told(capsys, home, "show", "small-1")
    assert record["cohorts"]["north"] == COHORT
    assert run(["run", "show", "small-1", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    for line in ("north  9", "1      north     east  1.5 s", "refused  south: DATA 0123456789ab"):
        assert line in shown


def test_watching_tells_each_thing_once_and_ends_with_the_run(
    home: Path, runs: RunDatabase, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY_S", 0.02)

    seen, tell = threading.Event(), module.progress_line

    def telling(line: str) -> None:
        tell(line)
        if line == "small-1: running":
            seen.set()

    monkeypatch.setattr(module, "progress_line", telling)

    def go_on() -> None:
        seen.wait(60)
        runs.add("small-1", "model_scored", {"model": "federated", "answered": ["north"]})
        runs.move("small-1", "finished")

    thread = threading.Thread(target=go_on)
    thread.start()
    assert run(["run", "watch", "small-1", "--home", str(home)]) == 0
    thread.join()
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "small-1: north is ready with 4 training cases",
        "small-1: south refused: DATA 0123456789ab",
        "small-1: round 1 closed in 1.5 s by north, late: east, south refused: DATA 0123456789ab",
        "small-1: running",
        "small-1: federated scored by north",
        "small-1: finished",
    ]
    assert shown.out.startswith("small-1 finished after")


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 5), ("stopped", 5)])
def test_watching_ends_as_the_run_did(
    state: Any, code: int, home: Path, runs: RunDatabase, capsys: Capture
) -> None:
    runs.move("small-1", state, "why")
    ended, facts = told(capsys, home, "watch", "small-1")
    assert (ended, facts["state"], facts["reason"]) == (code, state, "why")


@pytest.mark.parametrize("verb", ["watch", "show", "stop"])
def test_a_run_that_is_not_there_ends_with_2(verb: str, home: Path, capsys: Capture) -> None:
    code, error = told(capsys, home, verb, "gone-1")
    assert code == 2
    assert error["error"]["hint"] == "see `fedai run list`"


def test_a_run_that_ended_is_not_stopped_again(home: Path, runs: RunDatabase, capsys: Capture) -> None:
    runs.move("small-1", "failed", "why")
    assert told(capsys, home, "stop", "small-1") == (0, {"ok": True, "run": "small-1", "stopped": False})
    assert runs.get("small-1").state == "failed"


def test_starting_without_a_server_names_the_next_step(home: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "study.yaml").write_text(small_study().canonical())
    code, error = told(capsys, home, "start", str(tmp_path / "study.yaml"))
    assert code == 5
    assert "fedai server start" in error["error"]["hint"]


def test_the_home_may_come_from_the_environment(
    home: Path, runs: RunDatabase, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDAI_SERVER_HOME", str(home))
    assert run(["run", "list"]) == 0
    assert "small-1" in capsys.readouterr().out


def test_a_run_is_paused_and_resumed(home: Path, runs: RunDatabase, capsys: Capture) -> None:
    told = []
    for word in ("pause", "pause", "resume", "resume"):
        assert run(["run", word, "small-1", "--home", str(home), "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    results = [one.get("result", one) for one in told]
    assert [one["state"] for one in results] == ["paused", "paused", "running", "running"]
    assert [one.get("paused", one.get("resumed")) for one in results] == [True, False, True, False]
    assert runs.get("small-1").reason == "resumed"


def test_a_run_that_is_not_there_can_not_be_paused(home: Path, capsys: Capture) -> None:
    assert run(["run", "pause", "gone-1", "--home", str(home)]) == 2
    assert "there is no run 'gone-1'" in capsys.readouterr().err


def test_watch_tells_that_the_server_is_down_and_how_runs_go_on(
    home: Path, runs: RunDatabase, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY_S", 0.01)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    runs.add("small-1", "continued", {"after": 1})
    threading.Timer(1.5, lambda: runs.move("small-1", "stopped", "by the coordinator")).start()
    assert run(["run", "watch", "small-1", "--home", str(home)]) == 5
    said = "".join(capsys.readouterr())
    assert said.count("the server is down; runs go on with: fedai server start") == 1
    assert "its process at the server was gone; it goes on after round 1" in said


def test_every_kind_of_fact_has_a_line_of_its_own() -> None:
    facts = {"begun": {"sites": ["north"]}, "continued": {"after": 2}, "trained_alone": {"site": "north"},
             "site_left_out": {"site": "north", "why": "late"}}  # fmt: skip
    lines = [module._line(kind, fact) for kind, fact in facts.items()]
    assert lines[1:] == [
        "its process at the server was gone; it goes on after round 2",
        "north has trained its own model",
        "north is left out of the judgement: late",
    ]


def test_a_split_that_a_site_does_not_tell_of_is_shown_as_withheld_and_times_with_their_zone(
    home: Path, capsys: Capture
) -> None:
    database = RunDatabase(home / "runs.sqlite")
    name = database.plan(small_study())
    splits = {**COHORT["splits"], "validation": {"patients": 0, "cases": 0, "classes": [0, 0]}}
    cohort = {**COHORT, "splits": splits}
    database.add(name, "site_ready", {"site": "north", "cohort": cohort, "versions": {"fedai": "0.1.0"}})
    database.add(name, "without", {"sites": ["east", "south"]})
    assert run(["run", "show", name, "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    (row,) = [line for line in shown.splitlines() if line.startswith("north")]
    assert row.split()[-3:] == ["4", "withheld", "1"]
    assert "withheld: of so few patients the site tells nothing" in shown
    assert told(capsys, home, "show", name)[1]["cohorts"]["north"] == cohort
    assert run(["run", "list", "--home", str(home)]) == 0
    assert " UTC " in capsys.readouterr().out
    assert module._line("without", {"sites": ["east", "south"]}) == "trains without east, south"
