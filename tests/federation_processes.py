"""Real processes for tests: a home, a server that runs, a site's key, and patience with a limit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedai_server.home import ServerHome, init_home
from fedai_server.processes import running_processes

START_S = 60.0
STOP_S = 20.0


@dataclass(frozen=True)
class RunningServer:
    """`fedai server start` as a process, ready when a test gets it."""

    home: ServerHome
    process: subprocess.Popen[str]

    def pid(self, name: str) -> int:
        """Id of `supervisor`, `superlink` or `superexec`, as they are now; 0 while there is none."""
        return running_processes(self.home).get(name, 0)

    def all_pids(self) -> set[int]:
        """Every process that works for this home: supervisor, its children and theirs (ServerApps)."""
        return family(self.process.pid)


def free_port() -> int:
    """A port that nothing held a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_home(folder: Path) -> ServerHome:
    """A new server's home on free loopback ports."""
    return init_home(folder, public_host="127.0.0.1", public_port=free_port(), loopback_port=free_port())


@contextmanager
def start_server(home: ServerHome, *, record: Path | None = None) -> Iterator[RunningServer]:
    """Run `fedai server start HOME` until the block ends; it is ready when the block begins."""
    process = subprocess.Popen(
        server_command(home, record), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        first = first_line(process, START_S)
        assert first.startswith("ready "), f"{first}\n{logs_of(home)}"
        yield RunningServer(home, process)
    finally:
        end(process)


def server_command(home: ServerHome, record: Path | None = None) -> list[str]:
    """The command line of `fedai server start`."""
    recording = ["--record", str(record)] if record is not None else []
    return [*fedai_command(), "server", "start", str(home.folder), *recording]


def fedai_command() -> list[str]:
    """`fedai`, run by this Python."""
    return [sys.executable, "-c", "from fedai.cli.app import main; main()"]


def first_line(process: subprocess.Popen[str], seconds: float) -> str:
    """The first line a process prints; it is killed if it says nothing for `seconds`."""
    import threading

    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        return process.stdout.readline().strip()
    finally:
        timer.cancel()


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    """Signal a process and wait; it is killed if it doesn't end. Gives its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def wait_for(condition: Callable[[], bool], seconds: float, what: str, every_s: float = 0.05) -> float:
    """Wait until `condition` holds and give the seconds it took; AssertionError after `seconds`."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(every_s)
    return time.monotonic() - begun


def is_alive(pid: int) -> bool:
    """Does this process exist, and is no zombie?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def family(pid: int) -> set[int]:
    """A process and all its living descendants."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        grown = bool(more)
        found |= more
    return {member for member in found if is_alive(member)}


def make_site_key(folder: Path, name: str = "agent") -> tuple[Path, Path]:
    """A site's key pair as `fedai site init` makes it: private (OpenSSH, 0600) and public (OpenSSH)."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH) + b"\n"
    )
    return private, public


def logs_of(home: ServerHome) -> str:
    """The ends of a server's logs, for a failing test's message."""
    parts = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in home.logs.glob("*.log")]
    return "\n".join(parts)


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
