"""Lines that break, go silent or are slow, full disks, a locked database, a wrong clock, an answer sent more
than once; sites that come late or leave: what becomes of the run.

What can be got over must not change a bit of the model, against a twin without the fault. North's line to the
server goes through a proxy.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fedai_server.admission import admit
from fedai_server.launch import halt
from federation_processes import fedai_command, wait_for
from shaken_federation import ROUNDS, SITES, Shaken, Strike, ends_as_its_twin

pytestmark = pytest.mark.federation
HERE = Path(__file__).parents[1]
HOLE_S = 30.0
LOCKED_S = FULL_S = 20.0
TWO_MBIT, LATENCY_S = 2e6, 0.2
Fault = Callable[[Shaken], None]


def line_reset(shaken: Shaken) -> None:
    """Every connection is reset, three times."""
    for _ in range(3):
        wait_for(lambda: shaken.line.reset() > 0, 60, "a connection to cut")
        time.sleep(0.5)


def line_silent(shaken: Shaken) -> None:
    """Nothing passes for half a minute, and nothing is closed."""
    shaken.line.hold()
    time.sleep(HOLE_S)
    shaken.line.release()


def line_slow(shaken: Shaken) -> None:
    """2 Mbit/s and 200 ms, from then to the end of the run."""
    shaken.line.slow(TWO_MBIT, LATENCY_S)


def database_locked(shaken: Shaken) -> None:
    """Somebody else holds the run database for twenty seconds."""
    place = shaken.federation.home.folder / "runs.sqlite"
    with contextlib.closing(sqlite3.connect(place, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_S)
        other.rollback()


def disk_full(shaken: Shaken) -> None:
    """No room on the server's disk for twenty seconds: sites want to send meanwhile, rounds to close."""
    ballast = shaken.fill_disk()
    time.sleep(FULL_S)
    ballast.unlink()


SLOW: tuple[Fault, ...] = (line_reset, line_silent, line_slow, database_locked, disk_full)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=pytest.mark.faults) for fault in SLOW],
    ids=lambda fault: fault.__name__,
)
def test_what_can_be_got_over_changes_no_bit_of_the_model(
    fault: Fault, shaken: Shaken, strike: Strike, twin: dict[str, Any], record_property: Any
) -> None:
    if fault is disk_full and not shaken.has_own_disk:
        pytest.skip("a disk of its own can only be mounted by root")
    run = shaken.federation.start_run(shaken.study("twin", strike.seed))
    shaken.strike(run, strike)
    try:
        fault(shaken)
        _, equal = ends_as_its_twin(shaken, run, twin)
    finally:
        shaken.line.release()
        shaken.line.slow(0, 0)
    record_property("bit_equal", equal)
    assert equal


@contextmanager
def north_as(shaken: Shaken, command: list[str], *, starts: bool = True) -> Iterator[None]:
    """North's agent is another one for as long as the block lasts."""
    right = shaken.north.command
    assert shaken.north.stop() == 0
    shaken.north.command = command + right[-3:]
    try:
        if starts:
            shaken.north.start()
        yield
    finally:
        shaken.north.stop()
        shaken.north.command = right
        shaken.north.start()


@pytest.mark.faults
def test_an_answer_that_is_sent_again_and_again_counts_once(
    shaken: Shaken, strike: Strike, twin: dict[str, Any], record_property: Any
) -> None:
    """Of each answer there are three; the run is its twin's to the bit, and has as many cases."""
    before = shaken.north.said("sent again: ")
    with north_as(shaken, [sys.executable, str(HERE / "double_site.py")]):
        run = shaken.federation.start_run(shaken.study("twin", strike.seed))
        _, equal = ends_as_its_twin(shaken, run, twin)
    record_property("bit_equal", equal)
    assert equal
    assert shaken.north.said("sent again: ") - before >= 2 * (1 + ROUNDS)  # ready, and each round


@pytest.mark.faults
def test_an_answer_that_comes_after_its_run_has_ended_changes_nothing(shaken: Shaken, strike: Strike) -> None:
    run = shaken.federation.start_run(shaken.study("late", strike.seed, rounds=1))
    shaken.at_work(run, 1, strike.part)
    log, dropped = shaken.north.home.log, "is over; its task was dropped"
    before = log.read_text().count(dropped)
    shaken.line.hold()  # north works on, and can neither be told nor send
    try:
        wait_for(lambda: f"{run}: train-1- took" in log.read_text(), 300, "the end of north's training")
        halt(shaken.federation.home, run)
        registry = shaken.federation.home.folder / "registry" / run
        kept = {path.name for path in registry.iterdir()}
    finally:
        shaken.line.release()
    wait_for(lambda: log.read_text().count(dropped) > before, 120, "north to hear of it")
    assert shaken.federation.runs.get(run).state == "stopped"
    assert shaken.federation.runs.facts(run, "round_closed") == []
    assert {path.name for path in registry.iterdir()} - kept <= {"record.json"}
    after = shaken.federation.run(shaken.study("after", rounds=1, epochs=1))
    assert after["rounds"][0]["answered"] == sorted(SITES)


@pytest.mark.faults
def test_a_full_disk_at_a_site_leaves_it_out_and_named_until_there_is_room(
    shaken: Shaken, strike: Strike
) -> None:
    """A file can't grow beyond what the ledger has already: nothing is noted, so nothing leaves, and the
    agent ends; its service starts it again.
    """
    with north_as(shaken, fedai_command()):
        run = shaken.federation.start_run(shaken.study("full", strike.seed, quorum=1, grace_s=5))
        shaken.at_work(run, 1)
        time.sleep(strike.part)
        resource.prlimit(shaken.north.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        before = shaken.north.home.ledger.read_bytes()
        told, process = shaken.federation.has_told, shaken.north.process
        assert process is not None
        wait_for(lambda: told(run, "round_closed", number=1), 300, f"round 1\n{shaken.federation.told()}")
        assert shaken.north.home.ledger.read_bytes() == before
        wait_for(lambda: process.poll() is not None, 120, "the end of north's agent")
        shaken.north.start()
        record = shaken.federation.wait_for_run(run, 600)
    assert record["state"] == "finished", record["reason"]
    assert record["rounds"][0]["answered"] == ["east"]
    again = shaken.federation.run(shaken.study("room", rounds=1, epochs=1))
    assert again["rounds"][0]["answered"] == sorted(SITES)


@pytest.mark.faults
@pytest.mark.usefixtures("twin")  # by then both sites are warm: their first answer takes longest
def test_a_site_that_comes_late_is_named_and_takes_part_in_the_next_run(
    shaken: Shaken, fault_seed: int
) -> None:
    sites = shaken.federation.sites
    if "south" not in sites:
        south = shaken.federation.prepare_site("south")
        shaken.federation.finish_adding(south, shaken.federation.begin_adding(south))
        admit(shaken.federation.home, "south", south.home.public_key)
    everybody: dict[str, Any] = {"sites": (*SITES, "south"), "rounds": 1, "epochs": 1}
    first = shaken.federation.run(shaken.study("without", fault_seed, **everybody, waiting_s=30))
    assert first["state"] == "finished", first["reason"]
    assert first["rounds"][0]["answered"] == sorted(SITES)
    assert "south" not in first["cohorts"]
    sites["south"].start()
    try:
        second = shaken.federation.run(shaken.study("with", fault_seed, **everybody))
    finally:
        code = sites["south"].stop()
    assert second["rounds"][0]["answered"] == sorted((*SITES, "south"))
    assert code == 0


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_site_that_leaves_for_good_is_named_in_each_round_and_in_the_judgement(
    how: signal.Signals, shaken: Shaken, strike: Strike
) -> None:
    run = shaken.federation.start_run(shaken.study("left", strike.seed, quorum=1, grace_s=5, deadline_s=60))
    shaken.at_work(run, 1, strike.part)
    shaken.north.stop(how)
    try:
        record = shaken.federation.wait_for_run(run, 900)
    finally:
        shaken.north.start()
    assert record["state"] == "finished", record["reason"]
    for closed in record["rounds"]:
        assert (closed["answered"], closed["late"]) == (["east"], ["north"])
    assert record["left_out"] == {"north": "late"}


@pytest.mark.faults
@pytest.mark.parametrize("days", [-2, 2])
@pytest.mark.usefixtures("twin")  # by then both sites are warm
def test_a_site_whose_clock_is_two_days_off_says_so_and_the_rest_goes_on(
    days: int, shaken: Shaken, fault_seed: int
) -> None:
    north, wrong = shaken.north, [sys.executable, str(HERE / "wrong_clock.py"), str(days * 86_400)]
    study = shaken.study("clock", fault_seed, rounds=1, epochs=1, quorum=1, waiting_s=20)
    before = [north.said("clock right?"), north.said("connected")]
    with north_as(shaken, wrong, starts=False):
        north.begin()
        wait_for(lambda: north.said("clock right?") > before[0] + 1, 120, "north to say so again")
        record = shaken.federation.run(study)
        assert north.process is not None
        assert north.process.poll() is None  # it goes on trying
        assert north.said("connected") == before[1]
    assert record["state"] == "finished", record["reason"]
    assert record["rounds"][0]["answered"] == ["east"]
