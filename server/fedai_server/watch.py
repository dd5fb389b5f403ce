"""The page for who watches the server: `/metrics` and `/healthz` over HTTP, on loopback alone.

Off unless `metrics_port` is in server.yaml. It is a thread of the supervisor's, so that it still answers when
what it watches doesn't; where the supervisor itself stands still nobody answers, which is an answer too. It
changes nothing, and shows names of runs and sites, states, counts and times: whoever has an account on this
machine can read it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedai.exposition import CONTENT_TYPE, Family, page, single
from fedai_server.gate import LOOPBACK_HOSTS
from fedai_server.health import CHILDREN, Health, Pulse, look
from fedai_server.home import ServerHome
from fedai_server.processes import running_processes
from fedai_server.progress import Progress, now
from fedai_server.runs import RunDatabase
from fedai_server.superlink import bind

CALLER_S = 10.0  # for a caller's request, and for the look of the caller before
PLAIN = "text/plain; charset=utf-8"
WAL = ("", "-wal", "-journal")  # files of one SQLite database

log = logging.getLogger("fedai.server.watch")
Answer = tuple[int, str, str]


@dataclass
class Watch:
    """What is behind the two paths. One look at a time."""

    home: ServerHome
    pulse: Pulse
    turn: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str) -> Answer:
        """Status, content type and text for a path."""
        if path not in ("/metrics", "/healthz"):
            return 404, PLAIN, "see /metrics and /healthz\n"
        if not self.turn.acquire(timeout=CALLER_S):
            return 503, PLAIN, f"the look before has not ended for {CALLER_S:.0f} s\n"
        try:
            health = look(self.home, self.pulse)
            if path == "/metrics":
                return 200, CONTENT_TYPE, page(families(self.home, health))
            return (
                (503, PLAIN, "; ".join(health.problems) + "\n") if health.problems else (200, PLAIN, "ok\n")
            )
        except Exception as error:  # the boundary: who watches hears that there is no answer, the log why
            log.exception("the server can't be looked at")
            return 503, PLAIN, f"the server can't be looked at ({type(error).__name__})\n"
        finally:
            self.turn.release()


@contextmanager
def watched(home: ServerHome, pulse: Pulse) -> Iterator[None]:
    """Serve the page for as long as the block lasts, where a port is set. Raises ConfigError: it is taken."""
    if home.settings.metrics_port is None:
        yield
        return
    server = _Server(Watch(home, pulse), home.settings.metrics_port)
    thread = threading.Thread(target=server.serve_forever, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, watch: Watch, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Caller, bind_and_activate=False)
        self.socket.close()
        self.socket, self.watch = bind("127.0.0.1", port), watch


class _Caller(BaseHTTPRequestHandler):
    """One caller: GET, by loopback's name, and from no page of a browser (as gate.LoopbackGate has it)."""

    timeout = CALLER_S
    server: _Server

    def do_GET(self) -> None:
        host = self.headers.get("host", "").encode("latin-1", "replace")
        if not LOOPBACK_HOSTS.fullmatch(host) or self.headers.get("origin") is not None:
            self._tell(403, PLAIN, "by this machine's name alone\n")
            return
        self._tell(*self.server.watch.answer(self.path))

    def _tell(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "fedai"

    def log_message(self, format: str, *told: object) -> None:
        log.debug(format, *told)


def families(home: ServerHome, health: Health) -> Iterable[Family]:
    """Every metric of the page."""
    yield single("fedai_healthy", "1 where /healthz says ok.", not health.problems)
    pids = running_processes(home)
    up = Family("fedai_process_up", "1 where the supervisor holds this process to be running.")
    for name in CHILDREN:
        up.add(name in pids, process=name)
    yield up
    yield single("fedai_disk_free_bytes", "Free on the disk of the server's home.", _free(home))
    yield _databases(home)
    if health.runs is not None:
        yield from _runs(RunDatabase(home.runs_database), health.runs)


def _runs(database: RunDatabase, runs: list[Progress]) -> Iterable[Family]:
    at = now()
    states = Family("fedai_runs", "Runs by state.")
    for state, count in database.states().items():
        states.add(count, state=state)
    closed = Family("fedai_run_rounds_closed", "Rounds of a run that have closed.")
    rounds = Family("fedai_run_rounds", "Rounds that the run's study has.")
    progress = Family(
        "fedai_run_seconds_since_progress", "Since something new came of a run: an answer, a round."
    )
    beats = Family("fedai_run_seconds_since_turn", "Since the run's round loop last turned.")
    content = Family("fedai_run_bytes_total", "Arrays sent to and received from sites, unframed.", "counter")
    last = Family("fedai_run_last_round_sites", "Sites by what became of them in the round that closed last.")
    for run in runs:
        name = run.run.name
        closed.add(run.closed, run=name)
        rounds.add(run.rounds, run=name)
        progress.add(round(at - run.progress_at, 3), run=name)
        beats.add(round(at - run.beat_at, 3), run=name)
        content.add(run.sent, run=name, direction="sent")
        content.add(run.received, run=name, direction="received")
        for outcome, count in run.last_round.items():
            last.add(count, run=name, outcome=outcome)
    return [states, closed, rounds, progress, beats, content, last, *_questions(runs, at)]


def _questions(runs: list[Progress], at: float) -> Iterable[Family]:
    number = Family("fedai_run_open_round", "Round of the open question; 0 outside of rounds.")
    left = Family(
        "fedai_run_open_seconds_left", "Until the open question closes at the latest; below 0: past it."
    )
    sites = Family("fedai_run_open_sites", "Sites by what became of them in the open question so far.")
    awaited = Family("fedai_run_site_awaited", "1 for each site that hasn't answered the open question.")
    for run in runs:
        name, asked = run.run.name, run.question
        if asked is None or not asked.is_open:
            continue
        number.add(asked.round, run=name, task=asked.task)
        left.add(round(asked.until - at, 3), run=name)
        counts = {
            "answered": len(asked.answered),
            "refused": len(asked.refused),
            "awaited": len(asked.awaited),
        }
        for outcome, count in counts.items():
            sites.add(count, run=name, outcome=outcome)
        for site in asked.awaited:
            awaited.add(1, run=name, site=site)
    return [number, left, sites, awaited]


def _databases(home: ServerHome) -> Family:
    """Sizes of files; a run database on another machine is that machine's to watch."""
    sizes = Family("fedai_database_bytes", "Size of a database's files, with its write-ahead log.")
    sizes.add(_size(home.database), database="superlink")
    if isinstance(home.runs_database, Path):
        sizes.add(_size(home.runs_database), database="runs")
    return sizes


def _size(database: Path) -> int:
    files = (database.with_name(database.name + end) for end in WAL)
    return sum(path.stat().st_size for path in files if path.exists())


def _free(home: ServerHome) -> int:
    return shutil.disk_usage(home.folder).free
