"""The supervisor with real processes: what dies, what comes back, and that nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fedai_server.control import Control
from fedai_server.processes import Child, Supervisor, is_ready
from federation_processes import (
    RunningServer,
    end,
    first_line,
    is_alive,
    logs_of,
    make_home,
    server_command,
    start_server,
    wait_for,
)

from fedai.errors import ConfigError, FederationError

pytestmark = pytest.mark.federation

PATIENT_APP = """
import os, time
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    with open(os.environ["FEDAI_SERVER_HOME"] + "/beats", "a") as beats:
        for beat in range(int(context.run_config["beats"])):
            list(grid.get_node_ids())
            beats.write(f"{os.getpid()} {beat}\\n")
            beats.flush()
            time.sleep(0.1)
"""
PATIENT_PROJECT = """
[project]
name = "patient"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "patient:app"
clientapp = "patient:app"
[tool.flwr.app.config]
study = ""
beats = %d
"""


def start_patient_run(server: RunningServer, beats: int) -> tuple[int, int]:
    """Start a run whose ServerApp asks the SuperLink for nodes `beats` times; gives run and process id."""
    from flwr.cli.build import build_fab_from_files

    project = (PATIENT_PROJECT % beats).encode()
    bundle, _ = build_fab_from_files(
        {"pyproject.toml": project, "LICENSE": b"none", "patient.py": PATIENT_APP.encode()}
    )
    with Control(server.home) as control:
        run_id = control.start_run(bundle, "")
    file = server.home.folder / "beats"
    wait_for(lambda: file.exists() and file.read_text().count("\n") > 2, 60, "a ServerApp")
    return run_id, int(file.read_text().split()[0])


def test_a_superlink_that_is_killed_comes_back_and_the_run_goes_on(tmp_path: Path) -> None:
    with start_server(make_home(tmp_path / "home")) as server:
        run_id, app = start_patient_run(server, beats=80)
        before = {name: server.pid(name) for name in ("supervisor", "superlink", "superexec")}
        os.kill(before["superlink"], signal.SIGKILL)
        wait_for(lambda: server.pid("superlink") not in (0, before["superlink"]), 20, "a new SuperLink")
        wait_for(lambda: is_ready(server.home), 60, "a SuperLink that answers")
        assert server.pid("superexec") == before["superexec"]
        assert is_alive(app)
        with Control(server.home) as control:
            wait_for(
                lambda: control.list_runs()[0].status == "finished",
                60,
                f"the run's end\n{logs_of(server.home)}",
            )
            (run,) = control.list_runs()
        assert (run.run_id, run.outcome) == (run_id, "completed")
        assert (server.home.folder / "beats").read_text().count("\n") == 80


def test_a_call_made_while_the_superlink_is_down_waits(tmp_path: Path) -> None:
    with start_server(make_home(tmp_path / "home")) as server, Control(server.home) as control:
        os.kill(server.pid("superlink"), signal.SIGKILL)
        time.sleep(0.05)
        assert control.list_sites() == ()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all_and_a_run_with_them(tmp_path: Path, number: signal.Signals) -> None:
    with start_server(make_home(tmp_path / "home")) as server:
        _, app = start_patient_run(server, beats=600)
        everybody = server.all_pids()
        assert app in everybody
        assert len(everybody) >= 4
        begun = time.monotonic()
        assert end(server.process, number) == 0
        assert time.monotonic() - begun < 10
        assert [pid for pid in everybody if is_alive(pid)] == []
        assert not (server.home.state / "processes").exists()


def test_a_supervisor_that_is_killed_leaves_nobody(tmp_path: Path) -> None:
    with start_server(make_home(tmp_path / "home")) as server:
        start_patient_run(server, beats=600)
        everybody = server.all_pids()
        server.process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in everybody), 12, f"the end of {everybody}")


def test_a_server_starts_again_where_it_ended(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    for _ in range(2):
        with start_server(home) as server:
            assert is_ready(server.home)


def test_a_stop_during_the_start_ends_all(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    process = subprocess.Popen(
        server_command(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    server = RunningServer(home, process)
    wait_for(lambda: (home.state / "processes").exists(), 20, "children")
    everybody = server.all_pids()
    assert end(process) == 0
    assert [pid for pid in everybody if is_alive(pid)] == []


@pytest.mark.parametrize("which", ["public_port", "loopback_port"])
def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path, which: str) -> None:
    home = make_home(tmp_path / "home")
    port = getattr(home.settings, which)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1"), Supervisor(home):
            pass
        process = subprocess.Popen(
            server_command(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert f"port {port}" in first_line(process, 20)
        assert process.wait(20) == ConfigError.exit_code
    assert list(home.logs.iterdir()) == []


def test_a_superlink_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    home.database.write_bytes(b"this is no database" * 100)
    with (
        pytest.raises(FederationError, match=r"didn't start: .*not a database"),
        Supervisor(home) as supervisor,
    ):
        supervisor.wait_until_ready(30)


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    child = Child(
        "hopeless", (sys.executable, "-c", "raise SystemExit(1)"), tmp_path / "log", dict(os.environ)
    )
    begun, pauses = time.monotonic(), []
    while child.deaths < 4 and time.monotonic() - begun < 20:
        before = child.deaths
        child.tend()
        if child.deaths != before:
            pauses.append(child.start_at - time.monotonic())
        time.sleep(0.01)
    assert [round(pause, 2) for pause in pauses] == pytest.approx([0.25, 0.5, 1.0, 2.0], abs=0.03)


def test_a_child_that_ignores_sigterm_is_killed_with_its_own(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}]); {deaf}"
    child = Child("deaf", (sys.executable, "-c", code), tmp_path / "log", dict(os.environ))
    child.start()
    assert child.process is not None
    group = child.process.pid
    wait_for(lambda: len(_members(group)) == 2, 10, "two processes")
    time.sleep(0.3)  # until both are deaf
    child.stop(grace_s=0.3)
    wait_for(lambda: _members(group) == [], 3, "an empty session")


def _members(group: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if is_alive(pid) and _group_of(pid) == group]


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def test_logs_are_readable_by_their_owner_only(server: RunningServer) -> None:
    for log in server.home.logs.iterdir():
        assert log.stat().st_mode & 0o077 == 0
