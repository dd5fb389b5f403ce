"""A disk without room, and a database that can't be used for a while: what is written waits."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fedai_server import databases, room, runs
from fedai_server.databases import Unusable
from fedai_server.room import Room
from fedai_server.runs import RunDatabase
from federation_processes import wait_for
from studies import small_study

from fedai.checkpoint import write_whole

LIMITED = """
import resource, sys, time
from pathlib import Path
from fedai.checkpoint import write_whole
from fedai_server import room
from fedai_server.runs import RunDatabase
room.LOOK_EVERY_S = 0.05
place = Path(sys.argv[1])
runs = RunDatabase(place / "runs.sqlite")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
print("begun", flush=True)
content = b"1" * 2_000_000
print(room.Room(runs, "small-1").wait_for(lambda: write_whole(place / "checkpoint", content) or "written"))
"""


@pytest.fixture
def planned(tmp_path: Path) -> RunDatabase:
    database = RunDatabase(tmp_path / "runs.sqlite")
    assert database.plan(small_study()) == "small-1"
    database.move("small-1", "running", "round 2 of 5")
    return database


def test_a_run_waits_for_room_says_so_and_goes_on_as_it_was(planned: RunDatabase, tmp_path: Path) -> None:
    """A file of this process can't grow beyond 1 MB, until it may."""
    import resource

    writer = subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: planned.get("small-1").state == "waiting", 60, "the run to wait")
        assert planned.get("small-1").reason == "for room on the server's disk"
        assert not (tmp_path / "checkpoint").exists()
        assert not (tmp_path / "checkpoint.partial").exists()  # nor does a part of it take the last room
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said, _ = writer.communicate(timeout=60)
    finally:
        writer.kill()
    assert said.split() == ["begun", "written"]
    assert (tmp_path / "checkpoint").stat().st_size == 2_000_000
    run = planned.get("small-1")
    assert (run.state, run.reason) == ("running", "round 2 of 5")


def test_what_is_no_lack_of_room_is_raised(planned: RunDatabase, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Room(planned, "small-1").wait_for(lambda: write_whole(tmp_path / "nowhere" / "file", b""))
    assert planned.get("small-1").state == "running"


def test_a_run_that_was_stopped_meanwhile_stays_stopped(
    planned: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_EVERY_S", 0.01)
    tries = iter([OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "over quota")])

    def write() -> str:
        for error in tries:
            planned.move("small-1", "stopped", "by the coordinator")
            raise error
        return "written"

    assert Room(planned, "small-1").wait_for(write) == "written"
    assert planned.get("small-1").state == "stopped"


def test_a_locked_run_database_is_waited_for_by_a_run_and_told_to_everybody_else(
    planned: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "BUSY_S", 0.1)
    monkeypatch.setattr(runs, "AWAY_S", 0.05)
    databases._engine.cache_clear()
    waiting = RunDatabase(planned.place, waits=True)
    other = sqlite3.connect(planned.place, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()
    begun = time.monotonic()
    with pytest.raises(Unusable, match="can't be used"):
        planned.add("small-1", "round_closed", {"number": 1})
    waiting.add("small-1", "round_closed", {"number": 2})
    assert time.monotonic() - begun > 0.9
    found: list[dict[str, Any]] = [fact for _, _, fact in planned.facts("small-1")]
    assert found == [{"number": 2}]
    databases._engine.cache_clear()
