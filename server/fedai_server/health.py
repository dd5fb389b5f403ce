"""Is something wrong with the server that a person must look at? A list of reasons, of one line each.

A server with nothing to do is healthy, and so is one whose sites are away: a run that waits for them within
its deadlines does what it should. Reasons hold names of runs and processes and numbers, never an exception's
text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from fedai.errors import ConfigError
from fedai_server.home import ServerHome
from fedai_server.processes import is_ready, running_processes
from fedai_server.progress import Progress, now, progress_of
from fedai_server.room import WAITING
from fedai_server.runs import RunDatabase

BUSY_S = 2.0  # other writers hold the run database for milliseconds; it may be waited for twice
SUPERVISOR_S = 90.0  # its longest look: a locked database and a silent SuperLink, 30 s each
STILL_S = 300.0  # the longest that a round loop computes between two looks, with room to spare
LEAST_FREE_BYTES = 100_000_000
CHILDREN = ("superlink", "superexec")
STOPPED = ("T", "t")  # /proc/PID/stat: by a signal, or by a debugger


@dataclass
class Pulse:
    """The supervisor's: it beats each time that it has looked at its processes."""

    at: float = field(default_factory=now)

    def beat(self) -> None:
        """It is well now."""
        self.at = now()


@dataclass(frozen=True)
class Health:
    """`problems` is empty where all is well; `runs` is None where the run database can't be read."""

    problems: tuple[str, ...]
    runs: list[Progress] | None


def look(home: ServerHome, pulse: Pulse) -> Health:
    """Look at all of it once; takes about 0.1 s, or some 10 s where something doesn't answer."""
    database = RunDatabase(home.runs_database, busy_s=BUSY_S)
    problems = [*_process_problems(home, pulse), *_disk_problems(home)]
    try:
        runs = progress_of(database, home.folder / "registry")
        problems += [f"run {run.run.name}: {why}" for run in runs for why in run_problems(run, now())]
    except (ConfigError, SQLAlchemyError) as error:
        return Health((*problems, f"the run database can't be read ({type(error).__name__})"), None)
    try:
        database.check_writable()
    except (ConfigError, SQLAlchemyError) as error:
        problems.append(f"the run database can't be written ({type(error).__name__})")
    return Health(tuple(problems), runs)


def _process_problems(home: ServerHome, pulse: Pulse) -> Iterator[str]:
    silent_s = now() - pulse.at
    if silent_s > SUPERVISOR_S:
        yield f"the supervisor has not looked at its processes for {silent_s:.0f} s"
    pids = running_processes(home)
    yield from (f"{name} is not running" for name in CHILDREN if name not in pids)
    halted = stopped_in({pids[name]: name for name in CHILDREN if name in pids})
    yield from (f"a process of {name} is stopped (id {pid})" for pid, name in halted.items())
    if "superlink" in pids and "superlink" not in halted.values() and not is_ready(home):
        yield "the superlink doesn't answer on its ports"


def stopped_in(groups: dict[int, str]) -> dict[int, str]:
    """The processes that somebody has halted (SIGSTOP): id -> name of its group. Nothing where the system
    doesn't say (no /proc). `groups`: the leader's id -> name; a ServerApp is in superexec's.
    """
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = (
                path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
            )
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if state in STOPPED and int(group) in groups:
            found[int(path.parent.name)] = groups[int(group)]
    return found


def _disk_problems(home: ServerHome) -> Iterator[str]:
    free = shutil.disk_usage(home.folder).free
    if free < LEAST_FREE_BYTES:
        yield f"{free / 1e6:.0f} MB free on the disk of the server's home"


def run_problems(run: Progress, at: float) -> Iterator[str]:
    """What is wrong with a run at a Unix time; a paused one is let be."""
    if run.run.state == "paused":
        return
    if (run.run.state, run.run.reason) == ("waiting", WAITING):
        yield "it waits for room on the server's disk"
    if at - run.beat_at > STILL_S:
        yield f"its round loop has not turned for {at - run.beat_at:.0f} s"
    asked = run.question
    if asked is not None and at - max(asked.until, run.progress_at) > STILL_S:
        late_s = at - asked.until
        yield f"its question ({asked.task}, round {asked.round}) is past its deadline by {late_s:.0f} s"
