"""How much a run may ask of this site: what its study implies, and nothing twice with another content.

A study with five rounds is five trainings, one local-only model, and so many scored models; a server that
asked for more could feel its way to single cases. Kept on disk by Flower's run number, so that a restart
forgets nothing; a run has one name, and a name belongs to one run. Where the server's process was killed, the
same study goes on under the same name as another of Flower's runs: for a site it is the one that it began as
(`origin`), with what that one has left.

Models are linked (`place`) once. Only where a site dropped out meanwhile may the server ask again, with that
site's cases taken out of the pool: the same models, no histogram larger in any bin than the one before, and
no oftener than the study has sites. What a server that lies about the pool can learn: see fedai.placements.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedai.errors import RefusedByPolicy
from fedai.study import Study
from fedai.wire import Task, most_models
from fedai_site.replies import digest_of

MOST_TIMES_AGAIN = 50  # of one task: a line that breaks loses answers, but not so many


def origin(runs: Path, run_id: int, task: Task) -> int:
    """Flower's number of the run that `task.run` began as at this site, for the same study; else `run_id`."""
    try:
        first = int((runs / task.run / "run-id").read_text(encoding="ascii"))
        asked = json.loads((runs / "asked" / f"{first}.json").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return run_id
    return first if asked.get("study") == task.study else run_id


def claim(runs: Path, run_id: int, task: Task, study: Study) -> None:
    """Note that the run asks this task. The very same task may come again (a lost answer); it is one, but
    it isn't answered for ever.

    Raises RefusedByPolicy for the same task with another content, for more than the study implies, for the
    same once too often, and for a run of two names or a name of two runs. The task has passed
    `wire.check_task`: what doesn't fit the study is not noted, else a server could fill the disk.
    """
    path = runs / "asked" / f"{run_id}.json"
    asked: dict[str, Any] = {"run": task.run, "study": task.study, "tasks": {}}
    if path.exists():
        asked = json.loads(path.read_text(encoding="ascii"))
    _check_name(runs, run_id, task, asked["run"])
    digest, before = digest_of(task), asked["tasks"].get(task.key, [])
    again = asked.get("again", {}).get(digest, 0) + 1
    if digest in before:
        if again > MOST_TIMES_AGAIN:
            raise RefusedByPolicy(f"the run asked {task.key} {again} times over", reason="ASKED_TOO_OFTEN")
        _keep(path, {**asked, "again": {**asked.get("again", {}), digest: again}})
        return
    _check_content(path, task, study, before)
    scored = sum(key.startswith("score-") for key in asked["tasks"])
    if task.kind == "score" and scored >= most_models(study):
        raise RefusedByPolicy(f"the run wants more than {most_models(study)} models scored")
    path.parent.mkdir(parents=True, exist_ok=True)
    if task.kind == "place":
        _keep_placed(path, task)
    _keep(path, {**asked, "tasks": {**asked["tasks"], task.key: [*before, digest]}})


def _keep(path: Path, asked: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asked), encoding="ascii")
    partial.replace(path)


def _check_name(runs: Path, run_id: int, task: Task, name: str) -> None:
    """One name for a run, one run for a name: what is kept, and what the ledger tells, is of one run."""
    holder = runs / task.run / "run-id"
    if name == task.run and not holder.exists():
        holder.parent.mkdir(parents=True, exist_ok=True)
        partial = holder.with_suffix(".partial")
        partial.write_text(str(run_id), encoding="ascii")
        partial.replace(holder)
    if name != task.run or holder.read_text(encoding="ascii") != str(run_id):
        raise RefusedByPolicy(
            f"the name {task.run} and the run {run_id} don't belong together here",
            hint="a coordinator that began anew starts it again, until its name is new here",
        )


def _check_content(path: Path, task: Task, study: Study, before: list[str]) -> None:
    if not before or (task.kind == "place" and len(before) < len(study.sites) and _is_within(path, task)):
        return
    raise RefusedByPolicy(
        f"the run asked {task.key} before, with another content", hint="ask the coordinator why"
    )


def _is_within(path: Path, task: Task) -> bool:
    """Whether the histograms are the last ones' with something taken out."""
    try:
        with np.load(_placed(path), allow_pickle=False) as kept:
            models, last = tuple(kept["models"].tolist()), kept["histograms"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    new = _pool(task)
    return models == task.models and last.shape == new.shape and bool((new <= last).all())


def _keep_placed(path: Path, task: Task) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, models=np.array(task.models), histograms=_pool(task))
    partial.replace(_placed(path))


def _pool(task: Task) -> npt.NDArray[Any]:
    """The histograms to place in; a segmentation's models are linked without any."""
    return np.asarray(task.arrays.get("histograms", np.zeros(0, np.uint32)))


def _placed(path: Path) -> Path:
    return path.with_name(f"{path.stem}-placed.npz")
