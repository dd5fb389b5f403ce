"""A federation to be shaken: a server that may be killed, north behind a line that may fail, east beside it.

A fault strikes at a moment that its seed decides (`Strike`); each run has a twin of the same seed to which
nothing happens, and which is run once.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation_processes import family, is_alive, start_server, wait_for
from federation_sites import Federation, Site, federate
from flaky_line import Line, line_to

from fedai.study import Study

SITES = ("east", "north")
ROUNDS = 2
EPOCHS = 30
DISK_MB = 384
LATEST = 0.8  # of a training: later it may be over before the fault is there


@dataclass(frozen=True)
class Strike:
    """When a fault strikes: in which round, and after which part of north's training."""

    seed: int
    round: int
    part: float

    @classmethod
    def of(cls, fault: str, seed: int) -> Strike:
        luck = random.Random(f"{fault} {seed}")
        return cls(seed, luck.randint(1, ROUNDS), luck.uniform(0, LATEST))


@dataclass
class Shaken:
    """See above. `stack` ends what was started meanwhile; `has_own_disk`: the server's home."""

    federation: Federation
    line: Line
    stack: ExitStack
    has_own_disk: bool
    twins: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def north(self) -> Site:
        return self.federation.sites["north"]

    @property
    def batches(self) -> Path:
        """Where north writes down each batch."""
        return self.federation.folder / "north-batches.jsonl"

    def study(self, name: str, seed: int = 3, **changes: Any) -> Study:
        """Two rounds, both sites needed, time for whatever happens; `changes` as `study_of` takes them."""
        facts: dict[str, Any] = {"sites": SITES, "rounds": ROUNDS, "epochs": EPOCHS, "seed": seed}
        patience = {"deadline_s": 900, "grace_s": 900, "waiting_s": 300}
        return self.federation.study(name, **{**facts, **patience, **changes})

    def twin_of(self, seed: int) -> dict[str, Any]:
        """The record of a run to which nothing happened."""
        if seed not in self.twins:
            self.twins[seed] = self.federation.run(self.study("twin", seed), 600)
        return self.twins[seed]

    def at_work(self, run: str, number: int, part: float = 0.0, epochs: int = EPOCHS) -> None:
        """Wait until north has done this part of its training for a round of the run."""
        said, told = f"{run}: train round {number}", self.federation.told
        wait_for(lambda: self.north.said(said) > 0, 300, f"round {number} of {run}\n{told()}", 0.02)
        drawn = self.drawn() + int(part * epochs * 2)  # two batches an epoch
        wait_for(lambda: self.drawn() >= drawn, 300, f"batches of round {number} of {run}", 0.01)

    def drawn(self) -> int:
        """How many batches north has drawn so far."""
        return self.batches.read_bytes().count(b"\n") if self.batches.exists() else 0

    def strike(self, run: str, strike: Strike) -> None:
        """Wait for the moment."""
        self.at_work(run, strike.round, strike.part)

    def conductors(self) -> list[int]:
        """The ServerApps' processes."""
        return [pid for pid in self.federation.server.all_pids() if "flwr-serverapp" in command_of(pid)]

    def fill_disk(self) -> Path:
        """Leave no room on the server's disk; gives the file that takes it."""
        assert self.has_own_disk
        ballast = self.federation.home.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\1" * size)
        return ballast

    def kill_server(self) -> None:
        """kill -9 of everything of the server at once."""
        everybody = family(self.federation.server.process.pid)
        for pid in everybody:
            kill(pid)
        self.federation.server.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in everybody), 20, "the end of the server")

    def start_server(self) -> None:
        self.federation.server = self.stack.enter_context(start_server(self.federation.home))

    def kill_child(self, name: str) -> None:
        """kill -9 of the SuperLink or the SuperExec; returns when there is a new one."""
        server = self.federation.server
        before = server.pid(name)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: server.pid(name) not in (0, before), 60, f"a new {name}")


@contextmanager
def shaken_federation(folder: Path) -> Iterator[Shaken]:
    """Started; it ends with the block."""
    with ExitStack() as stack:
        has_own_disk = stack.enter_context(own_disk(folder / "server"))
        federation = stack.enter_context(federate(folder, ("east",)))
        line = stack.enter_context(line_to(federation.home.address))
        shaken = Shaken(federation, line, stack, has_own_disk)
        federation.add_site("north", address=line.address, batches=shaken.batches)
        yield shaken


@contextmanager
def own_disk(folder: Path) -> Iterator[bool]:
    """A disk of `DISK_MB` at `folder`, which only root can make; gives whether it is there."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def ends_as_its_twin(shaken: Shaken, run: str, twin: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The record of a finished run in which every site answered every round, and whether its models are its
    twin's to the bit.
    """
    assert twin["state"] == "finished", twin["reason"]
    record = shaken.federation.wait_for_run(run, 600)
    assert record["state"] == "finished", f"{record['reason']}\n{shaken.federation.told()}"
    assert [closed["answered"] for closed in record["rounds"]] == [sorted(SITES)] * ROUNDS
    assert [closed["cases"] for closed in record["rounds"]] == [c["cases"] for c in twin["rounds"]]
    models = [[closed["checkpoint"] for closed in of["rounds"]] for of in (record, twin)]
    return record, models[0] == models[1]
