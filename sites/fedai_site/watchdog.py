"""Ends work that takes too much memory or gets nowhere, by `memory_gb` and `stuck_minutes` of site.yaml.

Looked at before each batch, and by a thread while a task is worked on. What is stuck where no Python code
runs can't be ended so: after twice the time the process ends itself, and the supervisor starts it anew.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedai.errors import TrainingError

STUCK_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: trying again makes sense
STATM = Path("/proc/self/statm")

log = logging.getLogger("fedai.site.watchdog")


@dataclass
class Watchdog:
    """`memory_gb`: most memory that the process may hold (resident, 10^9 bytes). `stuck_minutes`: longest
    time without a batch. None: not watched.
    """

    memory_gb: float | None = None
    stuck_minutes: float | None = None
    end: Callable[[int], object] = os._exit
    now: Callable[[], float] = time.monotonic
    beaten_at: float = field(default=float("inf"), init=False)

    def begin(self) -> None:
        """A task is taken up."""
        self.beaten_at = self.now()

    def rest(self) -> None:
        """No task is worked on."""
        self.beaten_at = float("inf")

    def check(self) -> None:
        """Before each batch. Raises TrainingError where the process holds too much memory, or where the one
        before took too long.
        """
        minutes, held = self.idle_minutes(), resident_gb()
        self.begin()
        if self.memory_gb is not None and held > self.memory_gb:
            raise TrainingError(f"the agent holds {held:.2f} GB; site.yaml allows {self.memory_gb:g}",
                                hint="a smaller batch, fewer cases, or more memory_gb")  # fmt: skip
        if self.stuck_minutes is not None and minutes > self.stuck_minutes:
            raise TrainingError(f"no batch for {minutes:.1f} minutes, more than {self.stuck_minutes:g}",
                                hint="is the machine busy, or stuck_minutes too short?")  # fmt: skip

    def look(self) -> None:
        """By a thread, now and then: ends the process where there was no batch for twice the time."""
        if self.stuck_minutes is not None and self.idle_minutes() > 2 * self.stuck_minutes:
            log.critical("no batch for %.1f minutes: the agent ends itself", self.idle_minutes())
            self.end(STUCK_EXIT_CODE)

    def is_stuck(self) -> bool:
        """Whether there was no batch for longer than may be."""
        return self.stuck_minutes is not None and self.idle_minutes() > self.stuck_minutes

    def idle_minutes(self) -> float:
        """Since the last batch; 0 without a task in hand."""
        return max(self.now() - self.beaten_at, 0.0) / 60


def resident_gb() -> float:
    """Memory that this process holds, in 10^9 bytes; 0 where the system doesn't say (no /proc)."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
