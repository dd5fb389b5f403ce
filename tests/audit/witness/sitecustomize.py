"""Loaded by every Python process whose PYTHONPATH names this folder: whom it calls, which case data it opens.

Python code of the process can't remove an audit hook. One line of JSON for each event goes to
$FEDAI_WITNESS/PID.jsonl: the first says which process it is. What C code does by itself isn't seen.
"""

import json
import os
import sys

CALLS = {
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto",
    "socket.sendmsg",
}  # fmt: skip
READS = {"open", "sqlite3.connect", "os.listdir", "os.scandir"}
CASE_DATA = ("/clean", "/cache", "/catalogue.sqlite")
ALSO = os.environ.get("FEDAI_WITNESS_ALSO")  # one more part of paths whose reading is noted


def _watch(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103  as few imports as can be
    notes = os.open(f"{folder}/{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(event: str, told: list[object]) -> None:
        line = {"pid": os.getpid(), "event": event, "told": told}
        os.write(notes, json.dumps(line, default=repr).encode() + b"\n")

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in CALLS:
            note(
                event,
                list(
                    arguments[1:]
                    if event in ("socket.connect", "socket.sendto", "socket.sendmsg")
                    else arguments
                ),
            )
        elif event in READS and arguments:
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            if any(part in path for part in (*CASE_DATA, ALSO) if part):
                note(event, [path])

    note("process", list(sys.orig_argv))
    sys.addaudithook(hear)


if os.environ.get("FEDAI_WITNESS"):
    _watch(os.environ["FEDAI_WITNESS"])
