"""Tasks and replies as Flower's RecordDict, and back; strict in both directions.

A message travels as objects that name each other. Who puts one together again counts first what it will come
to: `pulled_within` while its objects come, `check_objects` before Flower inflates them.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.wire import Reply, Task

MOST_OBJECTS = 2_000  # of a message; Flower cuts arrays into pieces of 5 MB
MOST_WORDS_BYTES = 2_000_000  # all but the pieces: names, heads, lists, a network's layout
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

MESSAGE_TYPES = {
    "ready": "query",
    "train": "train",
    "train_alone": "train",
    "score": "evaluate",
    "place": "evaluate",
}


def task_record(task: Task) -> RecordDict:
    """A task as records `task` (JSON words) and `arrays`."""
    names = ("kind", "study", "run", "round", "model", "models", "layout")
    return RecordDict(
        {
            "task": ConfigRecord({"head": json.dumps({name: getattr(task, name) for name in names})}),
            "arrays": _array_record(task.arrays),
        }
    )


def read_task(record: RecordDict) -> Task:
    """A task from records. Raises RefusedByPolicy where they aren't those of a task."""
    _expect(record, {"task": ConfigRecord, "arrays": ArrayRecord})
    try:
        head = _head(record, "task")
        models = tuple(head.pop("models"))
        task = Task(**head, models=models, arrays=_arrays(record["arrays"]))
    except Exception:  # noqa: BLE001  another process's bytes: a header can make numpy raise anything
        raise RefusedByPolicy("the message is not a task") from None
    _check_words(task)
    return task


def reply_record(reply: Reply) -> RecordDict:
    """A reply as records `reply` (JSON words), `arrays`, `metrics`, `words`."""
    head = {
        "kind": reply.kind,
        "task": reply.task,
        "study": reply.study,
        "round": reply.round,
        "model": reply.model,
        "layout": reply.layout,
    }
    if reply.ledger:
        head["ledger"] = dict(reply.ledger)
    return RecordDict(
        {
            "reply": ConfigRecord({"head": json.dumps(head)}),
            "arrays": _array_record(reply.arrays),
            "metrics": MetricRecord(dict(reply.metrics)),
            "words": ConfigRecord(dict(reply.words)),
        }
    )


def read_reply(record: RecordDict) -> Reply:
    """A reply from records. Raises RefusedByPolicy where there is a record or a key too many or too few."""
    _expect(
        record, {"reply": ConfigRecord, "arrays": ArrayRecord, "metrics": MetricRecord, "words": ConfigRecord}
    )
    try:
        head = _head(record, "reply")
        metrics = dict(cast(MetricRecord, record["metrics"]))
        words = dict(cast(ConfigRecord, record["words"]))
        return Reply(
            **head, arrays=_arrays(record["arrays"]), metrics=cast(Any, metrics), words=cast(Any, words)
        )
    except Exception:  # noqa: BLE001  another process's bytes: a header can make numpy raise anything
        raise RefusedByPolicy("the message is not a reply") from None


def _head(record: RecordDict, name: str) -> dict[str, Any]:
    envelope = cast(ConfigRecord, record[name])
    if set(envelope) != {"head"}:
        raise KeyError(name)
    head = json.loads(str(envelope["head"]))
    if not isinstance(head, dict):
        raise TypeError(name)
    return head


def _check_words(task: Task) -> None:
    """A task's words become parts of paths and records at the site, so type and form are checked first."""
    texts = (task.kind, task.study, task.run, task.model, task.layout, *task.models)
    names = (*task.models, *filter(None, [task.model]))
    if (
        not all(isinstance(text, str) for text in texts)
        or type(task.round) is not int
        or task.kind not in MESSAGE_TYPES
        or not wire.RUN_PATTERN.fullmatch(task.run)
        or not all(wire.MODEL_PATTERN.fullmatch(name) for name in names)
    ):
        raise RefusedByPolicy("the task has odd words")


def _expect(record: RecordDict, kinds: dict[str, type]) -> None:
    found = {name: type(record[name]) for name in record}
    if found != kinds:
        raise RefusedByPolicy("the message has other records than a task or reply has")


def _array_record(arrays: Any) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def _arrays(record: Any) -> dict[str, npt.NDArray[Any]]:
    return {name: _numbers(array) for name, array in cast(ArrayRecord, record).items()}


def _numbers(array: Array) -> npt.NDArray[Any]:
    """The array, once its header says that it holds numbers and as many as there are bytes for."""
    data = io.BytesIO(array.data)
    shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(data)](data)
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(array.data) - data.tell():
        raise TypeError("not an array of numbers")
    return cast(npt.NDArray[Any], array.numpy())


def pulled_within(pull: Callable[[str], bytes], maximum_bytes: int) -> Callable[[str], bytes]:
    """`pull`, until what it brought is more than a message of `maximum_bytes`; then RefusedByPolicy."""
    sizes: dict[str, int] = {}

    def pull_one(object_id: str) -> bytes:
        content = pull(object_id)
        sizes[object_id] = len(content)
        if len(sizes) > MOST_OBJECTS or sum(sizes.copy().values()) > maximum_bytes + MOST_WORDS_BYTES:
            raise RefusedByPolicy(f"the message is larger than the {maximum_bytes:,} bytes allowed")
        return content

    return pull_one


def check_objects(objects: Mapping[str, bytes], maximum_bytes: int) -> None:
    """Refuse a message, as pulled, whose arrays come to more than `maximum_bytes`, or that is many words:
    Flower makes far more of a list than of a piece of an array. Raises RefusedByPolicy.
    """
    words = sum(len(content) for content in objects.values() if not content.startswith(b"ArrayChunk "))
    if len(objects) > MOST_OBJECTS or words > MOST_WORDS_BYTES:
        raise RefusedByPolicy("the message has more parts than a task or reply has")
    check_opened_size(objects, maximum_bytes + MOST_WORDS_BYTES)


def check_opened_size(objects: Mapping[str, bytes], limit: int) -> None:
    """Refuse a message whose arrays would take more than `limit` bytes once opened.

    `objects`: id -> bytes, as Flower carries them. An array names its chunks by number and may name one
    thousands of times, a record may name one array thousands of times: so it is added up before anything is
    opened. Raises RefusedByPolicy.
    """
    try:
        size = _opened_size(objects)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RefusedByPolicy("the message's objects are not Flower's") from None
    if size > limit:
        raise RefusedByPolicy(f"the message would take {size:,} bytes once opened; {limit:,} are allowed")


def _opened_size(objects: Mapping[str, bytes]) -> int:
    bodies = {key: content.index(b"\0") + 1 for key, content in objects.items()}
    arrays: dict[str, int] = {}
    names: Counter[str] = Counter()
    for key, content in objects.items():
        kind, children, _ = content[: bodies[key] - 1].decode().split(" ")
        if kind == "Array":
            chunks = [len(objects[child]) - bodies[child] for child in children.split(",") if child]
            arrays[key] = sum(chunks[n] for n in json.loads(content[bodies[key] :])["arraychunk_ids"])
        elif kind == "ArrayRecord":
            names.update(json.loads(content[bodies[key] :]).values())
    return sum(size * max(1, names[key]) for key, size in arrays.items())
