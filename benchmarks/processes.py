"""Processes of a benchmark: each with a log of its own, all ended when the block ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fedai.errors import FederationError, OutOfTime

READY_S = 180.0
STOP_S = 20.0


@dataclass
class Processes:
    """What was started, by name; the output of each goes to `logs`/NAME.log."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, name: str, command: Sequence[object], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a process that stays until `end`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=one_thread(environment),
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def wait_for(self, name: str, text: str) -> None:
        """Until `text` is in the log. Raises FederationError where one has ended, OutOfTime after READY_S."""
        until = time.monotonic() + READY_S
        while text not in self.log(name).read_text(encoding="utf-8", errors="replace"):
            self.check()
            if time.monotonic() > until:
                raise OutOfTime(
                    f"{name} didn't say {text!r} within {READY_S:.0f} s", hint=f"see {self.log(name)}"
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Raises FederationError where one has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise FederationError(f"{name} ended with {process.returncode}", hint=f"see {self.log(name)}")

    def end(self) -> None:
        """SIGTERM to all, the last started first; SIGKILL to what stays, with all that it started."""
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()


@contextmanager
def processes(logs: Path) -> Iterator[Processes]:
    """Processes that end with the block, also on SIGTERM and Ctrl-C."""
    started = Processes(logs)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield started
    finally:
        started.end()
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def call(command: Sequence[object], environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and give what it printed. Raises FederationError where it failed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=one_thread(environment), check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise FederationError(f"{' '.join(words[:6])} ended with {done.returncode}: {said}")
    return done.stdout


def one_thread(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for one of several processes that share a machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}


def fedai(*words: object) -> list[object]:
    """The command line of `fedai`, run by this Python."""
    return [sys.executable, "-m", "fedai.cli", *words]


def free_ports(count: int) -> list[int]:
    """Free loopback ports, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def machine() -> str:
    """This machine in neutral words, with how busy it is."""
    import platform

    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{cores} CPU cores ({platform.machine()}), {memory:.0f} GB memory, {platform.system()}, "
        f"Python {platform.python_version()}; load over 1, 5, 15 minutes: {load}"
    )
