"""How things end: servers that aren't there, runs that are stopped, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from fedai_server.runs import OVER
from federation_processes import (
    end,
    family,
    fedai_command,
    first_line,
    free_port,
    is_alive,
    make_home,
    server_command,
    wait_for,
)
from federation_sites import Federation, environment, make_site_home

pytestmark = pytest.mark.federation


def test_an_agent_whose_server_is_not_there_says_so_tries_again_and_gives_up(
    federation: Federation, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    home = make_site_home(tmp_path / "early", "early", address, federation.home.authority)
    command = [*fedai_command(), "site", "start", str(home.folder), "--give-up-s", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5
    assert done.stdout.count("trying again in") >= 2
    assert "can't be reached" in done.stderr
    assert "check address, network and proxy" in done.stderr


def test_a_stopped_run_ends_at_once_and_its_sites_are_free_for_the_next(federation: Federation) -> None:
    study = federation.study("halted", sites=("north", "east"), epochs=400)
    run = federation.start_run(study)
    north = federation.sites["north"]
    wait_for(lambda: north.said(f"{run}: train round 1") == 1, 120, "north at work")
    words = ["run", "stop", run, "--home", str(federation.home.folder)]
    done = subprocess.run(
        [*fedai_command(), *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{run} stopped" in done.stdout
    watch = ["run", "watch", run, "--home", str(federation.home.folder)]
    assert (
        subprocess.run([*fedai_command(), *watch], capture_output=True, timeout=120, check=False).returncode
        == 5
    )
    record = federation.runs.record(run)
    assert (record["state"], record["reason"], record["rounds"]) == ("stopped", "by the coordinator", [])
    next_run = federation.start_run(federation.study("after", sites=("north", "east")))
    wait_for(lambda: bool(federation.runs.record(next_run)["rounds"]), 180, f"a round\n{federation.told()}")
    assert federation.runs.record(next_run)["rounds"][0]["answered"] == ["east", "north"]
    federation.wait_for_run(next_run)
    assert federation.runs.get(run).state in OVER
    assert not federation.runs.record(run)["rounds"]


def interrupt(process: subprocess.Popen[str]) -> int:
    """Ctrl-C as a terminal sends it: to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(60)
    finally:
        end(process, signal.SIGKILL)


def test_ctrl_c_ends_a_server_and_all_that_it_started(tmp_path: Path) -> None:
    process = subprocess.Popen(
        server_command(make_home(tmp_path / "home")),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert first_line(process, 60).startswith("ready ")
    everybody = family(process.pid)
    assert len(everybody) >= 3
    assert interrupt(process) == 0
    assert [pid for pid in everybody if is_alive(pid)] == []


def test_ctrl_c_ends_an_agent_in_the_middle_of_its_training(federation: Federation) -> None:
    from fedai_server.launch import halt

    east = federation.sites["east"]
    run = federation.start_run(federation.study("cut", sites=("north", "east"), epochs=1000))
    wait_for(lambda: east.said(f"{run}: train round 1") == 1, 120, "east at work")
    everybody = family(east.pid)
    assert east.stop(signal.SIGINT) == 0
    assert [pid for pid in everybody if is_alive(pid)] == []
    assert east.said("left the federation") == 1
    assert [line["kind"] for line in east.ledger(run)] == ["status"]
    halt(federation.home, run)
    federation.sites["north"].stop(signal.SIGTERM)
    for site in ("north", "east"):
        federation.sites[site].start()


@pytest.mark.parametrize(
    "moment",
    ["hospital north", pytest.param("agents: north, east, south are connected", marks=pytest.mark.slow)],
)
def test_ctrl_c_ends_a_demo_and_all_that_it_started(tmp_path: Path, moment: str) -> None:
    process = subprocess.Popen(
        [*fedai_command(), "demo", "--out", str(tmp_path / "demo"), "--patients", "40"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**environment(tmp_path / "witness"), "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    said = next((line for line in lines if moment in line), None)
    everybody = family(process.pid)
    assert said, "the demo ended before"
    assert len(everybody) >= (2 if moment.startswith("agents") else 1)
    code = interrupt(process)
    assert code == 130, process.stderr.read()
    wait_for(lambda: not any(is_alive(pid) for pid in everybody), 20, "the end of all its processes")
    mine = str(tmp_path / "demo")
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mine in _words(path)]
    assert left == []


def _words(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
