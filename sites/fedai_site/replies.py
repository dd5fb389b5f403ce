"""What a site keeps of a run on its own disk: its scores, and answers for a task that is sent again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from fedai.wire import Reply, Task

KEPT = 8
HEAD = "__head__"
KEPT_REPLIES, SCORES = "replies/*", "scores-*"  # below `folder_of`


def folder_of(runs: Path, task: Task, run_id: int) -> Path:
    """What is kept of one run of one study; another run, or another study, never looks into it.

    `run_id` is Flower's, which no two runs share; names may be, where a coordinator begins anew.
    """
    return runs / task.run / f"{run_id}-{task.study}"


def place(runs: Path, task: Task, run_id: int) -> Path:
    """Where the answer to exactly this task rests: its key and a digest of everything the task carries."""
    return folder_of(runs, task, run_id) / "replies" / f"{task.key}-{digest_of(task)[:16]}.npz"


def digest_of(task: Task) -> str:
    """SHA-256 (hex) over everything that a task carries."""
    digest = hashlib.sha256(repr((task.key, task.study, task.run, task.models, task.layout)).encode())
    for name in sorted(task.arrays):
        digest.update(name.encode() + np.ascontiguousarray(task.arrays[name]).tobytes())
    return digest.hexdigest()


def keep(path: Path, reply: Reply) -> None:
    """Write an answer; it is there whole or not at all. The oldest beyond `KEPT` are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {field.name: getattr(reply, field.name) for field in fields(reply) if field.name != "arrays"}
    encoded = np.frombuffer(json.dumps(head).encode(), np.uint8)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **{HEAD: encoded}, **reply.arrays)
    partial.replace(path)
    for old in sorted(path.parent.glob("*.npz"), key=lambda kept: kept.stat().st_mtime)[:-KEPT]:
        old.unlink()


def find(path: Path) -> Reply | None:
    """The kept answer, or None where there is none or it isn't whole: then the work is done again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files if name != HEAD}
            return Reply(**json.loads(kept[HEAD].tobytes()), arrays=arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile):
        return None
