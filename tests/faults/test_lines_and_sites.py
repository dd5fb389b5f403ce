"""Lines that break, go silent or are slow, a full disk, a locked database, a wrong clock; sites that come
late or leave: what becomes of the run.

What can be got over must not change a bit of the model, against a twin without the fault. North's line to the
server goes through a proxy.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fedai_server.admission import admit
from fedai_server.launch import halt
from federation_processes import wait_for
from federation_sites import Federation, Site, federate
from flaky_line import Line, line_to

from fedai.study import Study

pytestmark = [pytest.mark.federation, pytest.mark.faults]
SITES = ("east", "north")
EPOCHS = 30
HOLE_S = 30.0
TWO_MBIT, LATENCY_S = 2e6, 0.2


@dataclass
class Lined:
    """East is beside the server, north behind the line."""

    federation: Federation
    line: Line

    @property
    def north(self) -> Site:
        return self.federation.sites["north"]

    def study(self, name: str, **changes: Any) -> Study:
        facts: dict[str, Any] = {
            "sites": SITES,
            "rounds": 2,
            "epochs": EPOCHS,
            "deadline_s": 900,
            "grace_s": 900,
        }
        return self.federation.study(name, **{**facts, "waiting_s": 300, **changes})

    def at_work(self, run: str, number: int) -> None:
        said = f"{run}: train round {number}"
        wait_for(lambda: self.north.said(said) > 0, 300, f"round {number} of {run}\n{self.federation.told()}")


@pytest.fixture(scope="module")
def lined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lined]:
    with ExitStack() as stack:
        federation = stack.enter_context(federate(tmp_path_factory.mktemp("lined"), ("east",)))
        line = stack.enter_context(line_to(federation.home.address))
        federation.add_site("north", address=line.address)
        yield Lined(federation, line)


@pytest.fixture(scope="module")
def undisturbed(lined: Lined) -> dict[str, Any]:
    """A run to which nothing happened."""
    return lined.federation.run(lined.study("twin"), 600)


def line_reset(lined: Lined, run: str) -> None:
    """Every connection is reset, three times in each round."""
    for number in (1, 2):
        lined.at_work(run, number)
        for _ in range(3):
            wait_for(lambda: lined.line.reset() > 0, 60, "a connection to cut")
            time.sleep(0.5)


def line_silent(lined: Lined, run: str) -> None:
    """Nothing passes for half a minute, and nothing is closed."""
    lined.at_work(run, 1)
    lined.line.hold()
    time.sleep(HOLE_S)
    lined.line.release()


def line_slow(lined: Lined, run: str) -> None:
    """2 Mbit/s and 200 ms, from the first round to the end of the run."""
    lined.at_work(run, 1)
    lined.line.slow(TWO_MBIT, LATENCY_S)


def database_locked(lined: Lined, run: str) -> None:
    """Somebody else holds the run database for twenty seconds."""
    lined.at_work(run, 1)
    with contextlib.closing(
        sqlite3.connect(lined.federation.home.folder / "runs.sqlite", timeout=30)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(20)
        other.rollback()


FAULTS: tuple[Callable[[Lined, str], None], ...] = (line_reset, line_silent, line_slow, database_locked)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_can_be_got_over_changes_no_bit_of_the_model(
    fault: Callable[[Lined, str], None], lined: Lined, undisturbed: dict[str, Any]
) -> None:
    assert undisturbed["state"] == "finished", undisturbed["reason"]
    run = lined.federation.start_run(lined.study("twin"))
    try:
        fault(lined, run)
        record = lined.federation.wait_for_run(run, 900)
    finally:
        lined.line.release()
        lined.line.slow(0, 0)
    assert record["state"] == "finished", f"{record['reason']}\n{lined.federation.told()}"
    assert [closed["answered"] for closed in record["rounds"]] == [sorted(SITES)] * 2
    assert [c["checkpoint"] for c in record["rounds"]] == [c["checkpoint"] for c in undisturbed["rounds"]]


def test_an_answer_that_comes_after_its_run_has_ended_changes_nothing(lined: Lined) -> None:
    run = lined.federation.start_run(lined.study("late", rounds=1))
    lined.at_work(run, 1)
    lined.line.hold()  # north works on, and can neither be told nor send
    log = lined.north.home.log
    wait_for(lambda: f"{run}: train-1- took" in log.read_text(), 300, "the end of north's training")
    halt(lined.federation.home, run)
    registry = lined.federation.home.folder / "registry" / run
    before = sorted(path.name for path in registry.iterdir())
    lined.line.release()
    wait_for(lambda: "is over; its task was dropped" in log.read_text(), 120, "north to hear of it")
    assert lined.federation.runs.get(run).state == "stopped"
    assert lined.federation.runs.facts(run, "round_closed") == []
    assert {path.name for path in registry.iterdir()} - set(before) <= {"record.json"}
    after = lined.federation.run(lined.study("after", rounds=1, epochs=1))
    assert after["rounds"][0]["answered"] == sorted(SITES)


def test_a_full_disk_at_a_site_leaves_it_out_and_named_until_there_is_room(lined: Lined) -> None:
    """A file can't grow beyond what the ledger has already: nothing is noted, so nothing leaves, and the
    agent ends; its service starts it again.
    """
    study = lined.study("full", quorum=1, grace_s=5, epochs=10)
    run = lined.federation.start_run(study)
    lined.at_work(run, 1)
    resource.prlimit(lined.north.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    before = lined.north.home.ledger.read_bytes()
    told, process = lined.federation.has_told, lined.north.process
    assert process is not None
    try:
        wait_for(lambda: told(run, "round_closed", number=1), 300, f"round 1\n{lined.federation.told()}")
        assert lined.north.home.ledger.read_bytes() == before
        wait_for(lambda: process.poll() is not None, 120, "the end of north's agent")
    finally:
        lined.north.stop()
        lined.north.start()
    record = lined.federation.wait_for_run(run, 600)
    assert record["state"] == "finished", record["reason"]
    assert record["rounds"][0]["answered"] == ["east"]
    again = lined.federation.run(lined.study("room", rounds=1, epochs=1))
    assert again["rounds"][0]["answered"] == sorted(SITES)


def test_a_site_that_comes_late_is_named_and_takes_part_in_the_next_run(lined: Lined) -> None:
    lined.federation.prepare_site("south")
    south = lined.federation.sites["south"]
    lined.federation.finish_adding(south, lined.federation.begin_adding(south))
    admit(lined.federation.home, "south", south.home.public_key)
    everybody: dict[str, Any] = {"sites": (*SITES, "south"), "rounds": 1, "epochs": 1, "waiting_s": 10}
    first = lined.federation.run(lined.study("without", **everybody))
    assert first["state"] == "finished", first["reason"]
    assert first["rounds"][0]["answered"] == sorted(SITES)
    assert "south" not in first["cohorts"]
    south.start()
    second = lined.federation.run(lined.study("with", **everybody))
    assert second["rounds"][0]["answered"] == sorted((*SITES, "south"))
    assert south.stop() == 0


def test_a_site_that_leaves_for_good_is_named_in_each_round_and_in_the_judgement(lined: Lined) -> None:
    study = lined.study("left", quorum=1, grace_s=5, deadline_s=60)
    run = lined.federation.start_run(study)
    lined.at_work(run, 1)
    assert lined.north.stop() == 0
    try:
        record = lined.federation.wait_for_run(run, 900)
    finally:
        lined.north.start()
    assert record["state"] == "finished", record["reason"]
    for closed in record["rounds"]:
        assert (closed["answered"], closed["late"]) == (["east"], ["north"])
    assert record["left_out"] == {"north": "late"}


@pytest.mark.parametrize("days", [-2, 2])
def test_a_site_whose_clock_is_two_days_off_says_so_and_the_rest_goes_on(days: int, lined: Lined) -> None:
    north = lined.north
    right = list(north.command)
    assert north.stop() == 0
    script = Path(__file__).parents[1] / "wrong_clock.py"
    north.command = [sys.executable, str(script), str(days * 86_400), *right[-3:]]
    before = north.said("clock right?")
    try:
        with pytest.raises(AssertionError, match="the agent of north"):
            north.start()
        assert north.said("clock right?") > before
        assert north.process is not None
        assert north.process.poll() is None  # it goes on trying
        study = lined.study(f"clock-{days + 2}", rounds=1, epochs=1, quorum=1, waiting_s=10)
        record = lined.federation.run(study)
        assert record["state"] == "finished", record["reason"]
        assert record["rounds"][0]["answered"] == ["east"]
    finally:
        north.stop()
        north.command = right
        north.start()
