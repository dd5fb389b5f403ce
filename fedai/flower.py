"""Tasks and replies as Flower's RecordDict, and back; strict in both directions.

Flower carries each record and each array as objects of their own, and every object is a request to push and
one to pull. So a message is one record of words, `head`, and one array of bytes: all arrays one after the
other, whose names, dtypes and shapes are the head's `parts`.

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
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.wire import Reply, Task

MOST_OBJECTS = 2_000  # of a message; Flower cuts arrays into pieces of 5 MB
MOST_WORDS_BYTES = 2_000_000  # all but the pieces: names, heads, lists, a network's layout
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

PACKED = "packed"
DTYPES = {
    np.dtype(kind).name: kind
    for kind in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
        np.float16, np.float32, np.float64,
    )
}  # fmt: skip

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
    return _record("task", {name: getattr(task, name) for name in names}, task.arrays)


def read_task(record: RecordDict) -> Task:
    """A task from records. Raises RefusedByPolicy where they aren't those of a task."""
    _expect(record, {"task": ConfigRecord, "arrays": ArrayRecord})
    try:
        head = _head(record, "task")
        models, parts = tuple(head.pop("models")), head.pop("parts")
        task = Task(**head, models=models, arrays=_arrays(record["arrays"], parts))
    except Exception:  # noqa: BLE001  another process's bytes: a header can make numpy raise anything
        raise RefusedByPolicy("the message is not a task") from None
    _check_words(task)
    return task


def reply_record(reply: Reply) -> RecordDict:
    """A reply as records `reply` (JSON words, metrics among them) and `arrays`."""
    names = ("kind", "task", "study", "round", "model", "layout")
    head = {name: getattr(reply, name) for name in names}
    head |= {"metrics": dict(reply.metrics), "words": dict(reply.words)}
    if reply.ledger:
        head["ledger"] = dict(reply.ledger)
    return _record("reply", head, reply.arrays)


def read_reply(record: RecordDict) -> Reply:
    """A reply from records. Raises RefusedByPolicy where there is a record or a key too many or too few."""
    _expect(record, {"reply": ConfigRecord, "arrays": ArrayRecord})
    try:
        head = _head(record, "reply")
        parts, metrics, words = head.pop("parts"), dict(head.pop("metrics")), dict(head.pop("words"))
        return Reply(**head, arrays=_arrays(record["arrays"], parts), metrics=metrics, words=words)
    except Exception:  # noqa: BLE001  another process's bytes: a header can make numpy raise anything
        raise RefusedByPolicy("the message is not a reply") from None


def _record(name: str, head: dict[str, Any], arrays: wire.Arrays) -> RecordDict:
    parts = [[key, array.dtype.name, list(array.shape)] for key, array in arrays.items()]
    words = json.dumps({**head, "parts": parts})
    return RecordDict({name: ConfigRecord({"head": words}), "arrays": _packed(arrays)})


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


def _packed(arrays: wire.Arrays) -> ArrayRecord:
    """All arrays as one of bytes; none where there are none."""
    rows = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for array in arrays.values()]
    if not rows:
        return ArrayRecord()
    size, header = sum(row.nbytes for row in rows), io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(header, form)
    data = b"".join([header.getvalue(), *(row.data for row in rows)])
    packed = Array(dtype="uint8", shape=(size,), stype="numpy.ndarray", data=data)
    return ArrayRecord({PACKED: packed})


def _arrays(record: Any, parts: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays, once the parts' dtypes and shapes are those of numbers, and as many as there are bytes."""
    packed = cast(ArrayRecord, record)
    if list(packed) != ([PACKED] if parts else []):
        raise KeyError(PACKED)
    data = _numbers(packed[PACKED]) if parts else memoryview(b"")
    found, place = {}, 0
    for name, dtype, shape in parts:
        kind = np.dtype(DTYPES[dtype]).newbyteorder("<")
        count = math.prod(_size(length) for length in shape)
        values = np.frombuffer(data, kind, count, place) if count else np.empty(0, kind)
        found[str(name)] = values.reshape(shape).astype(DTYPES[dtype])
        place += values.nbytes
    if place != len(data) or len(found) != len(parts):
        raise ValueError("parts")
    return found


def _size(length: Any) -> int:
    if type(length) is not int or length < 0:
        raise TypeError("shape")
    return length


def _numbers(array: Array) -> memoryview:
    """An array's bytes, once its header says that it holds bytes and as many as there are."""
    data = io.BytesIO(array.data)
    shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(data)](data)
    body = memoryview(array.data)[data.tell() :]
    if dtype != np.uint8 or shape != (len(body),):
        raise TypeError("not an array of bytes")
    return body


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
