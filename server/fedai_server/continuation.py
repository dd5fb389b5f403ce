"""Runs whose process at the server is gone go on, from the last closed round, under the same name.

What has been is in the run database and in the registry; what was under way is asked again, and sites answer
from what they kept. One process conducts a run: it holds a lock in the run's folder, which the kernel lets go
however the process ends, so that a dead one is seen at once. Flower can't begin a run's process anew, so
behind one name there may be several of its runs, one after another.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fedai.errors import FedaiError, FederationError
from fedai_server.bundle import release_bundle
from fedai_server.control import Control, FlowerRun
from fedai_server.home import ServerHome
from fedai_server.ledger import note_of
from fedai_server.roles import SUPERVISOR
from fedai_server.runs import OVER, Run, RunDatabase

LOCK = "conductor"
LOOK_EVERY_S = 2.0
HAND_OVER_S = 10.0  # a process that was replaced notices at its next look, and ends
PLANNED_FOR_S = 60.0  # `fedai run start` takes seconds from the plan to Flower's run; then it was killed
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MOST_TRIES = 8  # without anything new in between
PROGRESS = (
    "begun", "round_closed", "last_validated", "checkpoint_chosen", "trained_alone", "model_scored",
)  # fmt: skip
SPARE_BYTES = 10_000_000  # free pages of the SuperLink's database that are left alone

log = logging.getLogger("fedai.server.continuation")


@contextmanager
def conducting(folder: Path, flower_id: int, wait_s: float = HAND_OVER_S) -> Iterator[None]:
    """Hold a run for as long as the block lasts. Raises FederationError where another process holds it for
    longer than `wait_s`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait_s
    with (folder / LOCK).open("a+", encoding="ascii") as file:
        while not _take(file):
            if time.monotonic() > until:
                raise FederationError("another process conducts this run still", hint="end that one first")
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(flower_id))
        file.flush()
        yield


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def beat(folder: Path) -> None:
    """The round loop turns: the lock's time of change is now. A beat that can't be written is one missed."""
    with suppress(OSError):
        os.utime(folder / LOCK)


def last_beat(folder: Path) -> float:
    """When the round loop turned last, Unix time; 0 before it did."""
    try:
        return (folder / LOCK).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def conductor_gone(folder: Path) -> int | None:
    """Which of Flower's runs was conducted here last, now that nobody does; None while somebody does, 0
    before anybody did.
    """
    try:
        with (folder / LOCK).open("r+", encoding="ascii") as file:
            return int(file.read() or 0) if _take(file) else None
    except FileNotFoundError:
        return 0


@dataclass
class Continuation:
    """Call `look` every now and then, while the SuperLink is up."""

    home: ServerHome
    pauses: dict[str, float] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    said: str = ""

    @property
    def runs(self) -> RunDatabase:
        return RunDatabase(self.home.runs_database)

    def look(self) -> list[str]:
        """Start the runs again whose process is gone; gives their names. Afterwards, where nothing runs, give
        back what the SuperLink's database doesn't need any more. What stands in the way (no SuperLink, no
        room on the disk) is logged, and may be gone at the next look.
        """
        try:
            return self._look()
        except (FedaiError, OSError) as error:
            if str(error) != self.said:
                log.warning("can't look for runs to go on with: %s", error)
            self.said = str(error)
            return []

    def _look(self) -> list[str]:
        under_way = [run for run in self.runs.all() if run.state not in OVER]
        if not under_way:
            compact(self.home.database)
        gone = [run for run in under_way if run.state != "paused" and self._conductor_gone(run) is not None]
        if not gone:
            return []
        with Control(self.home, token=self.home.control_token) as control:
            known = {told.run_id: told for told in control.list_runs()}
            return [run.name for run in gone if self._is_dead(run, known) and self._again(control, run)]

    def _conductor_gone(self, run: Run) -> int | None:
        return conductor_gone(self.home.folder / "registry" / run.name)

    def _is_dead(self, run: Run, known: dict[int, FlowerRun]) -> bool:
        """The lock first, then the state: a run writes down its end before it lets the lock go."""
        last = self._conductor_gone(run)
        if last is None or self.runs.get(run.name).state in (*OVER, "paused"):
            return False
        if not run.flower_id:
            return run.seconds > PLANNED_FOR_S
        told = known.get(run.flower_id)
        return last == run.flower_id or told is None or told.status == "finished"

    def _again(self, control: Control, run: Run) -> bool:
        now = time.monotonic()
        if now < self.not_before.get(run.name, 0):
            return False
        tries = tries_without_progress(self.runs, run.name)
        if tries >= MOST_TRIES:
            why = f"its process at the server ended {tries + 1} times with nothing new in between"
            self.runs.move(run.name, "failed", f"{why}; see logs/superexec.log; checkpoints are kept")
            return False
        pause = min(FIRST_PAUSE_S * 2**tries, LONGEST_PAUSE_S)
        self.not_before[run.name] = now + pause
        note_of(self.home, SUPERVISOR, "continue", run=run.name)
        self.runs.add(run.name, "continued", {"after": self.runs.last_round(run.name)})
        try:
            self.runs.attach(run.name, control.start_run(release_bundle(), run.study))
        except FedaiError as error:
            log.warning("%s can't go on yet: %s", run.name, error, extra={"run": run.name})
            return False
        return True


def tries_without_progress(runs: RunDatabase, name: str) -> int:
    """How often a run was begun again since something of it was finished."""
    tries = 0
    for _, kind, _ in runs.facts(name):
        tries = 0 if kind in PROGRESS else tries + (kind == "continued")
    return tries


def compact(database: Path) -> int:
    """Give free pages of an SQLite file back to the disk, if they are many; gives the bytes freed.

    Flower deletes what a run has sent and leaves the file as large as it was. Nothing happens while it is
    busy.
    """
    if not database.exists():
        return 0
    before = database.stat().st_size
    try:
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free * connection.execute("PRAGMA page_size").fetchone()[0] <= SPARE_BYTES:
                return 0
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        log.info("the SuperLink's database can't be compacted now: %s", error)
        return 0
    return before - database.stat().st_size
