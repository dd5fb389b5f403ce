"""Ends a process whose parent is gone, however the parent ended (kill -9 leaves it no time to tell us)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

CHECK_EVERY_S = 0.2


def when_parent_is_gone(parent: int, leave: Callable[[], None]) -> None:
    """Call `leave` in a thread once the process `parent` is no longer our parent. Returns at once."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_EVERY_S)
        leave()

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
