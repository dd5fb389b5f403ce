"""When the server says of itself that something is wrong, and when it doesn't."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fedai_server import health
from fedai_server.health import STILL_S, SUPERVISOR_S, Pulse, look, run_problems, stopped_in
from fedai_server.home import write_file
from fedai_server.progress import Progress, Question, now
from fedai_server.room import WAITING
from fedai_server.runs import Run, RunDatabase, State
from federation_processes import RunningServer, make_home, wait_for
from studies import small_study

NOW = 1_000_000.0


def run(state: State = "running", reason: str = "round 1 of 2", **more: float | Question) -> Progress:
    row = Run("small-1", 1, "", "", state, reason, "", "")
    times: dict[str, float] = {"progress_at": NOW, "beat_at": NOW}
    return Progress(row, 2, **times | more)  # type: ignore[arg-type]


def asked(until: float) -> Question:
    return Question("train", 1, until, ("north",))


@pytest.mark.parametrize(
    ("sick", "why"),
    [
        (run(beat_at=NOW - STILL_S - 1), "its round loop has not turned for 301 s"),
        (run("planned", "", beat_at=NOW - STILL_S - 9), "its round loop has not turned for 309 s"),
        (run("waiting", WAITING), "it waits for room on the server's disk"),
        (
            run(question=asked(NOW - STILL_S - 5), progress_at=NOW - 3600),
            "its question (train, round 1) is past its deadline by 305 s",
        ),
    ],
)
def test_a_run_that_gets_nowhere_is_told_with_its_reason(sick: Progress, why: str) -> None:
    assert list(run_problems(sick, NOW)) == [why]


@pytest.mark.parametrize(
    "well",
    [
        run(),
        run("waiting", "for north, east", question=asked(NOW + 60), progress_at=NOW - 86_400),
        run("degraded", "round 1 closed without south (late)"),
        run("paused", "by the coordinator", beat_at=0, question=asked(1)),
        run(question=asked(NOW - STILL_S - 5)),  # it closed late, and the next thing has just come
    ],
)
def test_a_run_that_waits_for_its_sites_in_time_or_is_paused_is_well(well: Progress) -> None:
    assert list(run_problems(well, NOW)) == []


@pytest.mark.federation
def test_a_running_server_with_nothing_to_do_is_well_and_one_whose_process_is_halted_is_not(
    server: RunningServer,
) -> None:
    assert look(server.home, Pulse()).problems == ()
    assert look(server.home, Pulse(now() - SUPERVISOR_S - 5)).problems == (
        "the supervisor has not looked at its processes for 95 s",
    )
    for name in ("superlink", "superexec"):
        pid = server.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda pid=pid: bool(stopped_in({pid: ""})), 10, "a halted process")  # type: ignore[misc]
            (found,) = look(server.home, Pulse()).problems
        finally:
            os.kill(pid, signal.SIGCONT)
        assert found == f"a process of {name} is stopped (id {pid})"


def test_a_child_of_a_process_that_is_halted_is_told_as_one_of_its_leaders() -> None:
    """As a ServerApp is SuperExec's."""
    code = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        assert stopped_in({leader.pid: "superexec"}) == {}
        os.kill(child, signal.SIGSTOP)
        wait_for(
            lambda: stopped_in({leader.pid: "superexec"}) == {child: "superexec"}, 10, "a halted process"
        )
        assert stopped_in({1: "init"}) == {}
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def test_a_server_that_is_down_is_not_well(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    assert look(home, Pulse()).problems == ("superlink is not running", "superexec is not running")
    write_file(home.state / "processes", f"superlink {os.getpid()}\n".encode(), mode=0o600)
    assert look(home, Pulse()).problems == (
        "superexec is not running", "the superlink doesn't answer on its ports",
    )  # fmt: skip


def test_a_run_database_that_is_locked_or_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "BUSY_S", 0.05)
    home = make_home(tmp_path / "home")
    runs = RunDatabase(home.runs_database)
    name = runs.plan(small_study())
    with closing(sqlite3.connect(home.runs_database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = look(home, Pulse())
    assert "the run database can't be written (Unusable)" in locked.problems
    assert locked.runs is not None
    assert [found.run.name for found in locked.runs] == [name]
    assert "the run database can't be written (Unusable)" not in look(home, Pulse()).problems
    for end in ("", "-wal", "-shm"):
        (home.folder / f"runs.sqlite{end}").unlink(missing_ok=True)
    (home.folder / "runs.sqlite").write_bytes(b"no database at all" * 1000)
    torn = look(home, Pulse())
    assert torn.runs is None
    assert any(problem.startswith("the run database can't be read") for problem in torn.problems)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "home")
    monkeypatch.setattr(health, "LEAST_FREE_BYTES", 2**62)
    assert any(
        problem.endswith("MB free on the disk of the server's home")
        for problem in look(home, Pulse()).problems
    )
