from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from fedai_server import continuation
from fedai_server.continuation import MOST_TRIES, Continuation, compact, conducting, conductor_gone
from fedai_server.home import ServerHome
from fedai_server.ledger import ledger_of
from fedai_server.runs import RunDatabase, State
from federation_processes import make_home, wait_for
from studies import small_study

from fedai.errors import FederationError

HOLD = """
import sys, time
from pathlib import Path
from fedai_server.continuation import conducting
with conducting(Path(sys.argv[1]), 2**63 + 5):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_is_held_by_one_process_and_let_go_however_that_ends(tmp_path: Path) -> None:
    assert conductor_gone(tmp_path) == 0
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert conductor_gone(tmp_path) is None
        with pytest.raises(FederationError, match="another process"), conducting(tmp_path, 6, wait_s=0.1):
            raise AssertionError
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    wait_for(lambda: conductor_gone(tmp_path) == 2**63 + 5, 10, "the lock")
    with conducting(tmp_path, 6):
        assert conductor_gone(tmp_path) is None
    assert conductor_gone(tmp_path) == 6


@dataclass
class Told:
    """What the SuperLink says of one of its runs."""

    run_id: int
    status: str


@dataclass
class SuperLink:
    """Stands for Control: knows runs, starts new ones."""

    known: list[Told] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    refuses: bool = False

    def __call__(self, home: ServerHome, *, token: Path) -> Self:
        assert token == home.control_token, "whatever token its own environment names"
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def list_runs(self) -> list[Told]:
        return self.known

    def start_run(self, bundle: bytes, study: str) -> int:
        if self.refuses:
            raise FederationError("not now")
        self.started.append(study)
        return 100 + len(self.started)


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    made = SuperLink([Told(7, "running")])
    monkeypatch.setattr(continuation, "Control", made)
    return made


@pytest.fixture
def looking(tmp_path: Path, superlink: SuperLink) -> Continuation:
    return Continuation(make_home(tmp_path / "home"))


def run_in(looking: Continuation, state: State = "running", flower_id: int = 7) -> str:
    name = looking.runs.plan(small_study())
    looking.runs.attach(name, flower_id)
    looking.runs.move(name, state)
    return name


def conducted_before(looking: Continuation, name: str, flower_id: int = 7) -> None:
    with conducting(looking.home.folder / "registry" / name, flower_id):
        pass


@pytest.mark.parametrize("state", ["waiting", "running", "degraded"])
def test_a_run_that_nobody_conducts_any_more_is_started_again_under_its_name(
    state: State, looking: Continuation, superlink: SuperLink
) -> None:
    name = run_in(looking, state)
    conducted_before(looking, name)
    assert looking.look() == [name]
    assert superlink.started == [small_study().canonical()]
    (line,) = ledger_of(looking.home).lines()
    assert (line["operation"], line["by"], line["run"]) == ("continue", "server", name)
    run = looking.runs.get(name)
    assert (run.flower_id, run.state) == (101, state)
    assert looking.runs.record(name)["continued"] == [0]
    superlink.known.append(Told(101, "starting"))
    assert looking.look() == []  # its new process is on its way


def test_a_run_that_is_conducted_or_has_not_begun_is_let_be(
    looking: Continuation, superlink: SuperLink
) -> None:
    name = run_in(looking)
    assert looking.look() == []  # starting
    with conducting(looking.home.folder / "registry" / name, 7):
        superlink.known[0].status = "finished"
        assert looking.look() == []
    assert superlink.started == []


def test_a_run_database_that_can_not_be_used_is_said_once_and_ends_no_server(
    looking: Continuation, superlink: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    name = run_in(looking)
    conducted_before(looking, name)
    place = looking.home.folder / "runs.sqlite"
    place.rename(place.with_suffix(".away"))
    place.mkdir()
    assert [looking.look(), looking.look()] == [[], []]
    assert caplog.text.count("the run database can't be used") == 1
    place.rmdir()
    place.with_suffix(".away").rename(place)
    assert looking.look() == [name]


@pytest.mark.parametrize("known", [[], [Told(7, "finished")]], ids=["forgotten", "ended before it began"])
def test_a_run_of_which_the_superlink_expects_nothing_is_started_again(
    known: list[Told], looking: Continuation, superlink: SuperLink
) -> None:
    superlink.known = known
    name = run_in(looking)
    assert looking.look() == [name]


@pytest.mark.parametrize("state", ["paused", "finished", "failed", "stopped"])
def test_a_run_that_is_paused_or_over_stays_so(
    state: State, looking: Continuation, superlink: SuperLink
) -> None:
    name = run_in(looking, state)
    conducted_before(looking, name)
    assert looking.look() == []
    if state == "paused":
        looking.runs.resume(name)
        assert looking.look() == [name]


def test_a_start_that_was_killed_before_flower_knew_of_it_is_made_up_for(
    looking: Continuation, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = looking.runs.plan(small_study())
    assert looking.look() == []  # somebody may be starting it just now
    monkeypatch.setattr(continuation, "PLANNED_FOR_S", 0.0)
    assert looking.look() == [name]


def test_it_is_tried_with_growing_pauses_and_then_given_up_with_the_reason(
    looking: Continuation, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(continuation.time, "monotonic", lambda: now[0])
    name, at = run_in(looking), []
    superlink.known = []
    for _ in range(400):
        if looking.look():
            at.append(now[0] - 1000)
        now[0] += 0.5
    assert at == [0, 1, 3, 7, 15, 31, 63, 123]
    assert len(at) == MOST_TRIES
    run = looking.runs.get(name)
    assert run.state == "failed"
    assert "ended 9 times with nothing new in between" in run.reason


def test_progress_makes_the_count_begin_anew(looking: Continuation) -> None:
    name = run_in(looking)
    for _ in range(MOST_TRIES - 1):
        looking.runs.add(name, "continued", {"after": 0})
    assert continuation.tries_without_progress(looking.runs, name) == MOST_TRIES - 1
    looking.runs.add(name, "round_closed", {"number": 1})
    assert continuation.tries_without_progress(looking.runs, name) == 0


def test_a_superlink_that_refuses_is_asked_again_later(looking: Continuation, superlink: SuperLink) -> None:
    name = run_in(looking)
    conducted_before(looking, name)
    superlink.refuses = True
    assert looking.look() == []
    superlink.refuses = False
    looking.not_before.clear()
    assert looking.look() == [name]


def filled(path: Path) -> None:
    """A database that held 30 MB and holds one row now, as Flower leaves it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE objects (id INTEGER PRIMARY KEY, content BLOB)")
        connection.executemany("INSERT INTO objects (content) VALUES (?)", [(bytes(1_000_000),)] * 30)
        connection.commit()
        connection.execute("DELETE FROM objects WHERE id > 1")
        connection.commit()


def test_after_the_last_run_the_superlinks_database_is_as_large_as_what_it_holds(
    looking: Continuation,
) -> None:
    database = looking.home.database
    filled(database)
    name = run_in(looking, "paused")
    looking.look()
    assert database.stat().st_size > 25_000_000  # while anything is under way it is let be
    looking.runs.move(name, "stopped")
    looking.look()
    assert database.stat().st_size < 3_000_000
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*), length(content) FROM objects").fetchone() == (
            1,
            1_000_000,
        )
    assert compact(database) == 0


def test_a_database_that_is_busy_or_missing_is_left_for_later(tmp_path: Path) -> None:
    assert compact(tmp_path / "none.sqlite") == 0
    assert not (tmp_path / "none.sqlite").exists()
    database = tmp_path / "busy.sqlite"
    filled(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert compact(database) == 0
        writer.execute("ROLLBACK")
    assert compact(database) > 25_000_000


def test_runs_in_another_home_are_not_looked_at(looking: Continuation, tmp_path: Path) -> None:
    other = RunDatabase(make_home(tmp_path / "other").folder / "runs.sqlite")
    other.plan(small_study())
    assert looking.look() == []
