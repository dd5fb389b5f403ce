"""What dies, and what becomes of the run: real processes, real signals, TLS and keys.

Each run has a twin without a fault, of the same study; a fault that can be got over must not change a bit of
the model. `make faults` runs all of them, with as many seeds as one wants: a seed decides the moment and the
study's own seed. `make test` leaves out those marked `faults`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from fedai_server.continuation import conductor_gone
from fedai_server.launch import halt
from federation_processes import wait_for
from shaken_federation import EPOCHS, SITES, Shaken, Strike, ends_as_its_twin, kill

pytestmark = pytest.mark.federation
ENDLESS = 1000  # epochs
DEADLINE_S = 40  # on a busy machine a site needs up to half of it for its training
Fault = Callable[[Shaken], None]


def agent_killed(shaken: Shaken) -> None:
    """An agent is killed while it trains, and started again."""
    shaken.north.signal(signal.SIGKILL)
    shaken.north.stop()
    shaken.north.start()


def conductor_killed(shaken: Shaken) -> None:
    """The run's process at the server is killed in the middle of a round."""
    for pid in shaken.conductors():
        kill(pid)


def superexec_killed(shaken: Shaken) -> None:
    """What starts the runs' processes is killed, and they with it."""
    shaken.kill_child("superexec")


def superlink_killed(shaken: Shaken) -> None:
    """The SuperLink is killed in the middle of a round."""
    shaken.kill_child("superlink")


def everything_killed(shaken: Shaken) -> None:
    """The power goes: server and agents at once."""
    for site in shaken.federation.sites.values():
        site.signal(signal.SIGKILL)
    shaken.kill_server()
    for site in shaken.federation.sites.values():
        site.stop()
    shaken.start_server()
    for site in shaken.federation.sites.values():
        site.start()


def server_stopped_and_started(shaken: Shaken) -> None:
    """An operator ends the server in the middle of a round, and starts it again."""
    shaken.federation.server.process.send_signal(signal.SIGTERM)
    assert shaken.federation.server.process.wait(60) == 0
    shaken.start_server()


QUICK: tuple[Fault, ...] = (everything_killed,)
SLOW: tuple[Fault, ...] = (
    agent_killed,
    conductor_killed,
    superexec_killed,
    superlink_killed,
    server_stopped_and_started,
)
NOT_TAKEN_UP: tuple[Fault, ...] = (agent_killed, superlink_killed)
"""What the run's process outlives."""


@pytest.mark.parametrize(
    "fault",
    [*QUICK, *(pytest.param(fault, marks=pytest.mark.faults) for fault in SLOW)],
    ids=lambda fault: fault.__name__,
)
def test_what_can_be_got_over_changes_no_bit_of_the_model(
    fault: Fault, shaken: Shaken, strike: Strike, twin: dict[str, Any], record_property: Any
) -> None:
    run = shaken.federation.start_run(shaken.study("twin", strike.seed))
    shaken.strike(run, strike)
    fault(shaken)
    record, equal = ends_as_its_twin(shaken, run, twin)
    record_property("bit_equal", equal)
    assert equal
    assert bool(record["continued"]) == (fault not in NOT_TAKEN_UP)


def test_a_stopped_run_stops_the_training_at_the_sites_too(shaken: Shaken, strike: Strike) -> None:
    run = shaken.federation.start_run(shaken.study(f"halted-{strike.seed}", strike.seed, epochs=ENDLESS))
    shaken.at_work(run, 1, strike.part, EPOCHS)
    before = shaken.north.home.log.read_text().count("is over; its task was dropped")
    halt(shaken.federation.home, run)
    log = shaken.north.home.log
    wait_for(lambda: log.read_text().count("is over; its task was dropped") > before, 60, "its end")
    assert shaken.federation.runs.get(run).state == "stopped"
    assert [line["kind"] for line in shaken.north.ledger(run)] == ["status"]  # but that it was ready


@pytest.mark.faults
def test_a_site_frozen_for_longer_than_the_deadline_is_left_out_and_comes_back(
    shaken: Shaken, strike: Strike
) -> None:
    patience = {"quorum": 1, "grace_s": DEADLINE_S, "deadline_s": DEADLINE_S}
    run = shaken.federation.start_run(shaken.study("frozen", strike.seed, rounds=3, **patience))
    shaken.at_work(run, 1, strike.part)
    shaken.north.signal(signal.SIGSTOP)
    runs = shaken.federation.runs
    try:
        wait_for(lambda: runs.get(run).state == "degraded", 300, "a round without north")
        assert runs.get(run).reason == "round 1 closed without north (late)"
        assert runs.last_round(run) == 1
    finally:
        shaken.north.signal(signal.SIGCONT)
    record = shaken.federation.wait_for_run(run, 300)
    assert record["state"] == "finished", record["reason"]
    assert (record["rounds"][0]["answered"], record["rounds"][0]["late"]) == (["east"], ["north"])
    assert record["rounds"][0]["seconds"] >= DEADLINE_S
    assert record["rounds"][-1]["answered"] == sorted(SITES)
    for closed in record["rounds"]:  # each site counts once in a round, or is named
        assert sorted([*closed["answered"], *closed["late"], *closed["refused"]]) == sorted(SITES)
        assert sorted(closed["cases"]) == closed["answered"]


@pytest.mark.faults
def test_a_run_whose_process_dies_whenever_it_is_started_fails_with_the_reason(
    shaken: Shaken,
) -> None:
    run = shaken.federation.start_run(shaken.study("doomed", epochs=ENDLESS))
    registry, until = shaken.federation.home.folder / "registry" / run, time.monotonic() + 900
    while shaken.federation.runs.get(run).state != "failed" and time.monotonic() < until:
        if conductor_gone(registry) is None:  # it has begun: one that dies before is missed by Flower alone
            for pid in shaken.conductors():
                kill(pid)
        time.sleep(0.5)
    found = shaken.federation.runs.get(run)
    assert found.state == "failed"
    assert "with nothing new in between" in found.reason
