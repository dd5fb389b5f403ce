"""Flower's SuperExec as a process of ours: it waits for runs and starts each one's ServerApp.

`python -m fedai_server.superexec PARENT ARGUMENTS...`: PARENT is the supervisor's process id, the rest goes
to flower-superexec. When the supervisor is gone without having ended us, the whole session goes at once,
ServerApps too: nobody is left to look after them. Flower throws a ServerApp's output away; here it goes to
our log, so that a run that dies early says why.
"""

from __future__ import annotations

import os
import signal
import sys

from fedai_server.orphans import when_parent_is_gone

TASK_POLL_INTERVAL_S = 0.2


def main() -> None:
    """Run flower-superexec with the arguments of this process."""
    when_parent_is_gone(int(sys.argv.pop(1)), end_session)  # before the slow imports
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec.plugin import AutoExecPlugin

    AutoExecPlugin.suppress_output = False
    flower_superexec()


def end_session() -> None:
    """Kill this process and all that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
