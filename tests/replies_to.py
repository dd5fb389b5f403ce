"""Tasks of the small study, and a sound answer to each, made from the form that it must have."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np
from flwr.app import Message, Metadata
from studies import small_study

from fedai import wire
from fedai.flower import MESSAGE_TYPES, task_record
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, layout_of, pack
from fedai.wire import Reply, Task

STUDY = small_study()
CHOOSING = small_study(training={"checkpoint": {"choose": "best"}})
MODELS = ("federated", "local:north")


@cache
def start_weights() -> tuple[Layout, Weights]:
    network = build_network(STUDY)
    layout = layout_of(network)
    return layout, pack(network, layout)


LAYOUT = start_weights()[0]


def task_of(kind: wire.TaskKind, **changes: Any) -> Task:
    """A task as the server would send it for the small study."""
    facts: dict[str, Any] = {"run": "small-1", "study": STUDY.sha256}
    if kind in wire.WITH_WEIGHTS:
        facts |= {"layout": LAYOUT.to_json(), "arrays": dict(start_weights()[1].arrays())}
    if kind == "train":
        facts["round"] = 1
    if kind == "score":
        facts["model"] = "local:north"
    if kind == "place":
        counts = np.zeros((len(MODELS), 1, 2, wire.BINS), np.uint32)
        facts |= {"models": MODELS, "arrays": {"histograms": counts}}
    return Task(kind, **facts | changes)


def study_of(kind: wire.TaskKind) -> Study:
    """A study in which such a task may be asked."""
    return CHOOSING if kind == "validate" else STUDY


def message_of(task: Task, run_id: int = 7) -> Message:
    """The task as Flower would hand it to a site."""
    metadata = Metadata(
        run_id=run_id, message_id="m", src_node_id=1, dst_node_id=2, reply_to_message_id="", group_id="",
        created_at=time.time(), ttl=60, message_type=MESSAGE_TYPES[task.kind],
    )  # fmt: skip
    return Message(task_record(task), metadata=metadata)


def reply_to(
    task: Task, study: Study = STUDY, layout: Layout = LAYOUT, *, cases: int = 7, value: float = 0.5
) -> Reply:
    """An answer of exactly the form asked for: floats are `value`, counts 1, `cases` as given."""
    form = wire.form_of(task, study, layout)
    arrays = {
        name: np.full(shape, value if np.dtype(dtype).kind == "f" else 1, dtype)
        for name, (dtype, shape) in form.arrays.items()
    }
    metrics = {name: (value if kind is float else 1) for name, kind in form.metrics.items()}
    return Reply(
        kind=form.kind,
        task=task.kind,
        study=task.study,
        round=task.round,
        model=task.model,
        layout=layout.sha256 if form.kind == "update" else "",
        arrays=arrays,
        metrics={**metrics, **({"cases": cases} if "cases" in metrics else {})},
        words=dict.fromkeys(form.words, "1.0"),
    )
