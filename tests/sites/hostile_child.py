"""Cleans every file of a folder in a process of its own, with limits: what happened to each, as JSON.

    python hostile_child.py FOLDER KEY SECONDS header|pixels

Ends with 1 and the file's name where anything but Quarantine is raised; by SIGALRM where one takes too long.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

MEMORY = 6 << 30


def main(folder: Path, key: Path, seconds: int, depth: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from fedai_site.deidentify.objects import Settings, clean_object
    from fedai_site.deidentify.profile import load_profile
    from fedai_site.quarantine import Quarantine

    settings = Settings(
        load_profile("basic"), key, pixels=depth == "pixels", faces=False, board_decision="none"
    )
    with suppress(Quarantine):
        clean_object((folder / "warm-up").read_bytes(), settings)
    before, outcomes = _peak(), {}
    for path in sorted(folder.glob("*.dcm")):
        signal.alarm(seconds)
        print(path.name, file=sys.stderr, flush=True)
        try:
            path.with_suffix(".out").write_bytes(clean_object(path.read_bytes(), settings).data)
            outcomes[path.name] = "written"
        except Quarantine as error:
            outcomes[path.name] = str(error.reason)
    signal.alarm(0)
    print(json.dumps({"outcomes": outcomes, "megabytes": (_peak() - before) // 1024}))
    return 0


def _peak() -> int:
    """The most memory that the process has had, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
