"""What dies, and what becomes of the run: real processes, real signals, TLS and keys.

Each run here has a twin without a fault, of the same study; a fault that can be got over must not change a
bit of the model. The server is this file's own, since it is killed. `make faults` runs them all; `make test`
leaves out those marked `faults`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fedai_server.continuation import conductor_gone
from fedai_server.launch import halt
from federation_processes import family, is_alive, start_server, wait_for
from federation_sites import Federation, federate

from fedai.study import Study

pytestmark = pytest.mark.federation
SITES = ("north", "east")
EPOCHS = 60
ENDLESS = 1000  # epochs
Fault = Callable[["Shaken", str], None]


class Shaken:
    """A federation whose server may be killed and started again."""

    def __init__(self, federation: Federation, stack: ExitStack) -> None:
        self.federation, self.stack = federation, stack

    def conductors(self) -> list[int]:
        """The ServerApps' processes."""
        return [pid for pid in self.federation.server.all_pids() if "flwr-serverapp" in command_of(pid)]

    def kill_server(self) -> None:
        """kill -9 of everything of the server at once."""
        everybody = family(self.federation.server.process.pid)
        for pid in everybody:
            kill(pid)
        self.federation.server.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in everybody), 20, "the end of the server")

    def start_server(self) -> None:
        self.federation.server = self.stack.enter_context(start_server(self.federation.home))

    def at_work(self, run: str, number: int) -> None:
        """Wait until north trains this round of the run."""
        north = self.federation.sites["north"]
        wait_for(lambda: north.said(f"{run}: train round {number}") > 0, 300, f"round {number} of {run}")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shaken]:
    with ExitStack() as stack:
        federation = stack.enter_context(federate(tmp_path_factory.mktemp("shaken"), SITES))
        yield Shaken(federation, stack)


def study_for(shaken: Shaken) -> Study:
    """Two rounds, both sites needed; the same for run and twin."""
    return shaken.federation.study(
        "twin", sites=SITES, rounds=2, epochs=EPOCHS, deadline_s=600, grace_s=600, waiting_s=300
    )


@pytest.fixture(scope="module")
def undisturbed(shaken: Shaken) -> dict[str, Any]:
    """A run to which nothing happened."""
    return shaken.federation.run(study_for(shaken), 400)


def agent_killed(shaken: Shaken, run: str) -> None:
    """An agent is killed while it trains, and started again."""
    shaken.at_work(run, 1)
    north = shaken.federation.sites["north"]
    north.signal(signal.SIGKILL)
    north.stop()
    north.start()


def conductor_killed(shaken: Shaken, run: str) -> None:
    """The run's process at the server is killed in the middle of a round."""
    shaken.at_work(run, 1)
    for pid in shaken.conductors():
        kill(pid)


def superexec_killed(shaken: Shaken, run: str) -> None:
    """What starts the runs' processes is killed, and they with it."""
    shaken.at_work(run, 2)
    before = shaken.federation.server.pid("superexec")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: shaken.federation.server.pid("superexec") not in (0, before), 60, "a new SuperExec")


def superlink_killed(shaken: Shaken, run: str) -> None:
    """The SuperLink is killed in the middle of a round."""
    shaken.at_work(run, 2)
    before = shaken.federation.server.pid("superlink")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: shaken.federation.server.pid("superlink") not in (0, before), 60, "a new SuperLink")


def everything_killed(shaken: Shaken, run: str) -> None:
    """The power goes: server and agents at once."""
    shaken.at_work(run, 2)
    for site in shaken.federation.sites.values():
        site.signal(signal.SIGKILL)
    shaken.kill_server()
    for site in shaken.federation.sites.values():
        site.stop()
    shaken.start_server()
    for site in shaken.federation.sites.values():
        site.start()


def server_stopped_and_started(shaken: Shaken, run: str) -> None:
    """An operator ends the server in the middle of a round, and starts it again."""
    shaken.at_work(run, 1)
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


@pytest.mark.parametrize(
    "fault",
    [*QUICK, *(pytest.param(fault, marks=pytest.mark.faults) for fault in SLOW)],
    ids=lambda fault: fault.__name__,
)
def test_what_can_be_got_over_changes_no_bit_of_the_model(
    fault: Fault, shaken: Shaken, undisturbed: dict[str, Any]
) -> None:
    assert undisturbed["state"] == "finished", undisturbed["reason"]
    run = shaken.federation.start_run(study_for(shaken))
    fault(shaken, run)
    record = shaken.federation.wait_for_run(run, 500)
    assert record["state"] == "finished", f"{record['reason']}\n{shaken.federation.told()}"
    assert [closed["answered"] for closed in record["rounds"]] == [sorted(SITES)] * 2
    assert [c["cases"] for c in record["rounds"]] == [c["cases"] for c in undisturbed["rounds"]]
    assert [c["checkpoint"] for c in record["rounds"]] == [c["checkpoint"] for c in undisturbed["rounds"]]
    assert bool(record["continued"]) == (fault not in (agent_killed, superlink_killed))


def test_a_stopped_run_stops_the_training_at_the_sites_too(shaken: Shaken) -> None:
    study = shaken.federation.study("halted", sites=SITES, epochs=ENDLESS, deadline_s=600)
    run = shaken.federation.start_run(study)
    shaken.at_work(run, 1)
    halt(shaken.federation.home, run)
    north = shaken.federation.sites["north"]
    log = north.home.log
    wait_for(lambda: "is over; its task was dropped" in log.read_text(), 60, "the end of the training")
    assert shaken.federation.runs.get(run).state == "stopped"
    assert [line["kind"] for line in north.ledger(run)] == ["status"]  # nothing left but that it was ready


@pytest.mark.faults
def test_a_site_frozen_for_longer_than_the_deadline_is_left_out_and_comes_back(shaken: Shaken) -> None:
    study = shaken.federation.study(
        "frozen", sites=SITES, rounds=3, epochs=EPOCHS, quorum=1, grace_s=5, deadline_s=20
    )
    run = shaken.federation.start_run(study)
    shaken.at_work(run, 1)
    north = shaken.federation.sites["north"]
    north.signal(signal.SIGSTOP)
    try:
        told = shaken.federation.has_told
        wait_for(lambda: told(run, "round_closed", number=1), 120, "a round without north")
        assert shaken.federation.runs.get(run).state == "degraded"
        assert "north (late)" in shaken.federation.runs.get(run).reason
    finally:
        north.signal(signal.SIGCONT)
    record = shaken.federation.wait_for_run(run, 300)
    assert record["state"] == "finished", record["reason"]
    assert (record["rounds"][0]["answered"], record["rounds"][0]["late"]) == (["east"], ["north"])
    for closed in record["rounds"]:  # each site counts once in a round, or is named
        assert sorted([*closed["answered"], *closed["late"], *closed["refused"]]) == sorted(SITES)
        assert sorted(closed["cases"]) == closed["answered"]


@pytest.mark.faults
def test_a_run_whose_process_dies_whenever_it_is_started_fails_with_the_reason(shaken: Shaken) -> None:
    study = shaken.federation.study("doomed", sites=SITES, epochs=ENDLESS, deadline_s=600)
    run = shaken.federation.start_run(study)
    registry, until = shaken.federation.home.folder / "registry" / run, time.monotonic() + 560
    while shaken.federation.runs.get(run).state != "failed" and time.monotonic() < until:
        if conductor_gone(registry) is None:  # it has begun: one that dies before is missed by Flower alone
            for pid in shaken.conductors():
                kill(pid)
        time.sleep(0.5)
    found = shaken.federation.runs.get(run)
    assert found.state == "failed"
    assert "with nothing new in between" in found.reason
