"""The supervisor behind `fedai server start`: keeps SuperLink and SuperExec running, ends what it started.

    supervisor ── superlink     holds no run's memory: may be restarted while runs go on
              └── superexec ── one ServerApp per run

The supervisor binds both ports and hands them to each SuperLink it starts, so a taken port is told before
anything starts, and callers wait out a restart. Whatever ends, ends downwards only: a dead SuperLink is
started again with back-off and takes no run with it; a dead supervisor (kill -9 too) takes everything along.
Runs whose process is gone go on, in this life of the server or in the next: see continuation.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from fedai.errors import ConfigError, FederationError
from fedai_server import superexec
from fedai_server.continuation import LOOK_EVERY_S, Continuation
from fedai_server.home import ServerHome, write_file
from fedai_server.superlink import GRACE_S, bind_both, flower_environment

READY_S = 60.0
TEND_EVERY_S = 0.1
BACK_OFF_FIRST_S = 0.25
BACK_OFF_LAST_S = 15.0
STEADY_S = 30.0  # alive this long: the next death starts at the shortest back-off again
HOME_VARIABLE = "FEDAI_SERVER_HOME"  # how a ServerApp's process finds its home

log = logging.getLogger("fedai.server.processes")


@dataclass
class Child:
    """A process that is kept running."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: dict[str, str]
    inherited: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    back_off_s: float = BACK_OFF_FIRST_S
    deaths: int = 0

    def start(self) -> None:
        """Start it in a session of its own, so that it gets no Ctrl-C of ours."""
        with _open_log(self.log) as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=self.inherited, start_new_session=True,
            )  # fmt: skip
        self.started = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Is its process running?"""
        return self.process is not None and self.process.poll() is None

    def tend(self) -> None:
        """Start it again if it died, once its back-off is over."""
        now = time.monotonic()
        if self.is_alive:
            return
        if self.process is not None:
            self._mourn(now)
        if now >= self.start_at:
            self.start()

    def _mourn(self, now: float) -> None:
        if now - self.started > STEADY_S:
            self.back_off_s = BACK_OFF_FIRST_S
        self._signal_group(signal.SIGTERM)  # what it left behind in its session
        self.start_at = now + self.back_off_s
        self.back_off_s = min(self.back_off_s * 2, BACK_OFF_LAST_S)
        self.deaths += 1
        self.process = None

    def stop(self, grace_s: float) -> None:
        """End its whole session: SIGTERM, then SIGKILL after `grace_s`."""
        if self.process is None:
            return
        self._signal_group(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._group_exists() and time.monotonic() < deadline:
            self.process.poll()  # takes the exit code, else the leader stays as a zombie in its group
            time.sleep(0.02)
        self._signal_group(signal.SIGKILL)
        self.process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def _group_exists(self) -> bool:
        if self.process is None:
            return False
        try:
            os.killpg(self.process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class Supervisor:
    """`with Supervisor(home) as supervisor:`, then `wait_until_ready`, then `tend` until told to stop."""

    def __init__(self, home: ServerHome, *, record: Path | None = None) -> None:
        self.home = home
        self._record = record
        self._sockets: tuple[socket.socket, ...] = ()
        self.children: tuple[Child, ...] = ()

    def __enter__(self) -> Self:
        """Bind both ports and start both children. Raises ConfigError: a port is taken, a key is missing."""
        self.home.require_whole()
        if is_ready(self.home):
            raise ConfigError(f"this home's server runs already, at {self.home.address}",
                              hint=f"fedai server status {self.home.folder}")  # fmt: skip
        self._sockets = bind_both(self.home)
        self.children = (self._superlink(), self._superexec())
        try:
            self.tend()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def tend(self) -> None:
        """Start again what died. Call it a few times a second."""
        before = [child.process for child in self.children]
        for child in self.children:
            child.tend()
        if [child.process for child in self.children] != before:
            self._write_pids()

    @property
    def is_whole(self) -> bool:
        """Do all children run?"""
        return all(child.is_alive for child in self.children)

    def stop(self) -> None:
        """End runs first, then the SuperLink; nothing is left after this."""
        for child in reversed(self.children):
            child.stop(GRACE_S + 2)
        for listener in self._sockets:
            listener.close()
        (self.home.state / "processes").unlink(missing_ok=True)

    def wait_until_ready(self, seconds: float = READY_S, stop: threading.Event | None = None) -> None:
        """Wait until both listeners answer, with our own certificate on the public one, or `stop` is set.

        Raises FederationError, with the last lines of the log, when the SuperLink dies or stays silent.
        """
        deadline = time.monotonic() + seconds
        while not (stop is not None and stop.is_set()) and not is_ready(self.home):
            if not self.children[0].is_alive or time.monotonic() > deadline:
                raise self._silence()
            time.sleep(0.05)

    def _silence(self) -> FederationError:
        log = self.children[0].log
        text = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        return FederationError(f"the SuperLink didn't start: {' | '.join(text)}", hint=f"see {log}")

    def _superlink(self) -> Child:
        public, loopback = (listener.fileno() for listener in self._sockets)
        command = [sys.executable, "-m", "fedai_server.superlink", "--home", str(self.home.folder)]
        command += ["--sockets", f"{public},{loopback}", "--parent", str(os.getpid())]
        if self._record is not None:
            command += ["--record", str(self._record)]
        log = self.home.logs / "superlink.log"
        return Child("superlink", tuple(command), log, flower_environment(self.home), (public, loopback))

    def _superexec(self) -> Child:
        command = [sys.executable, "-m", superexec.__name__, str(os.getpid()), "--insecure"]
        command += ["--runtime-api-address", self.home.loopback_address]
        command += ["--superexec-auth-secret-file", str(self.home.superexec_secret)]
        environment = superexec_environment(self.home)
        return Child("superexec", tuple(command), self.home.logs / "superexec.log", environment)

    def _write_pids(self) -> None:
        pids = [f"supervisor {os.getpid()}"]
        pids += [f"{child.name} {child.process.pid}" for child in self.children if child.process is not None]
        try:
            write_file(self.home.state / "processes", ("\n".join(pids) + "\n").encode(), mode=0o600)
        except OSError as error:  # a full disk is no reason to end what runs
            log.warning("the processes' ids can't be written: %s", error)


def supervise(
    home: ServerHome,
    *,
    record: Path | None = None,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_restart: Callable[[Child], None] = lambda child: None,
    on_continued: Callable[[str], None] = lambda run: None,
) -> None:
    """Run a server in the foreground until `stop` is set (see `stop_on_signals`).

    Raises ConfigError when a port is taken, FederationError when the SuperLink can't be started.
    """
    from fedai_server.health import Pulse
    from fedai_server.watch import watched

    stop, pulse = stop or threading.Event(), Pulse()
    with watched(home, pulse), Supervisor(home, record=record) as supervisor:
        supervisor.wait_until_ready(stop=stop)
        if not stop.is_set():
            on_ready()
        continuation, look_at = Continuation(home), 0.0
        deaths = {child.name: 0 for child in supervisor.children}
        while not stop.wait(TEND_EVERY_S):
            supervisor.tend()
            pulse.beat()
            for child in supervisor.children:
                if child.deaths != deaths[child.name]:
                    deaths[child.name] = child.deaths
                    on_restart(child)
            if time.monotonic() > look_at and supervisor.is_whole:
                for run in continuation.look():
                    on_continued(run)
                look_at = time.monotonic() + LOOK_EVERY_S


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, for as long as the block lasts."""
    stop = threading.Event()

    def heed(number: int, frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, heed) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def superexec_environment(home: ServerHome) -> dict[str, str]:
    """What the SuperExec and every ServerApp inherit; FEDAI_SERVER_HOME says where the home is."""
    environment = flower_environment(home)
    environment[HOME_VARIABLE] = str(home.folder)
    environment["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = str(superexec.TASK_POLL_INTERVAL_S)
    # flwr-serverapp is looked up by name: the one of this installation first.
    environment["PATH"] = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def running_processes(home: ServerHome) -> Mapping[str, int]:
    """Ids of supervisor, superlink and superexec as last written; empty when no server runs."""
    try:
        lines = (home.state / "processes").read_text().split("\n")
    except FileNotFoundError:
        return {}
    return {name: int(number) for name, _, number in (line.partition(" ") for line in lines if line)}


def is_ready(home: ServerHome, *, timeout_s: float = 1.0) -> bool:
    """Do both listeners of this home answer, the public one under our authority?"""
    return _loopback_answers(home, timeout_s) and _public_answers(home, timeout_s)


def _loopback_answers(home: ServerHome, timeout_s: float) -> bool:
    import http.client

    from fedai_server.gate import HEALTH_PATH

    connection = http.client.HTTPConnection("127.0.0.1", home.settings.loopback_port, timeout=timeout_s)
    try:
        connection.request("GET", HEALTH_PATH)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _public_answers(home: ServerHome, timeout_s: float) -> bool:
    context = ssl.create_default_context(cafile=str(home.authority))
    context.check_hostname = False  # we ask ourselves, by address
    address = (_own_address(home.settings.listen_host), home.settings.public_port)
    try:
        with socket.create_connection(address, timeout_s) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return secure.recv(12) == b"HTTP/1.1 404"
    except OSError:
        return False


def _own_address(listen_host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen_host, listen_host)  # noqa: S104


def _open_log(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
