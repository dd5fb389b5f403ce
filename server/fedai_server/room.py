"""A full disk at the server: a run waits until there is room, and has lost nothing."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fedai_server.runs import Run, RunDatabase

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOOK_EVERY_S = 2.0
WAITING = "for room on the server's disk"
Result = TypeVar("Result")

log = logging.getLogger("fedai.server.room")


@dataclass(frozen=True)
class Room:
    """Of one run, which says that it waits, where the run database can still be written."""

    runs: RunDatabase
    name: str

    def wait_for(self, write: Callable[[], Result]) -> Result:
        """What `write` gives, which is done again until the disk has room for it. Raises what else it raises.

        It must be something that can be begun anew.
        """
        before: Run | None = None
        while True:
            try:
                done = write()
                break
            except OSError as error:
                if error.errno not in FULL:
                    raise
                before = before or self._say(error)
                time.sleep(LOOK_EVERY_S)
        if before is not None:
            self.runs.move(self.name, before.state, before.reason)
        return done

    def _say(self, error: OSError) -> Run:
        log.warning("%s waits %s: %s", self.name, WAITING, error, extra={"run": self.name})
        before = self.runs.get(self.name)
        self.runs.move(self.name, "waiting", WAITING)
        return before
