"""Tasks and replies as Flower's RecordDict, and back; strict in both directions.

Every object of a message costs a call and several statements of the SuperLink's database, each way. So all
arrays travel as one, end to end, and the head says what they are.

A message travels as objects that name each other. Who puts one together again counts first what it will come
to: `pulled_within` while its objects come, `check_objects` before Flower inflates them.
"""

from __future__ import annotations

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
PACKED = "packed"  # the one array, and what Flower is told that its bytes are
NUMBERS = "biuf"  # kinds of dtype

MESSAGE_TYPES = {
    "ready": "query",
    "train": "train",
    "train_alone": "train",
    "validate": "evaluate",
    "score": "evaluate",
    "place": "evaluate",
}


def task_record(task: Task) -> RecordDict:
    """A task as records `task` (JSON words, and what the arrays are) and `arrays`."""
    names = ("kind", "study", "run", "round", "model", "models", "layout")
    return _record("task", {name: getattr(task, name) for name in names}, task.arrays)


def read_task(record: RecordDict) -> Task:
    """A task from records. Raises RefusedByPolicy where they aren't those of a task."""
    _expect(record, {"task": ConfigRecord, "arrays": ArrayRecord})
    try:
        head = _head(record, "task")
        arrays, models = _arrays(head.pop("arrays"), record["arrays"]), tuple(head.pop("models"))
        task = Task(**head, models=models, arrays=arrays)
    except Exception:  # noqa: BLE001  another process's bytes
        raise RefusedByPolicy("the message is not a task") from None
    _check_words(task)
    return task


def reply_record(reply: Reply) -> RecordDict:
    """A reply as records `reply` (JSON words, metrics, and what the arrays are) and `arrays`."""
    head = {
        "kind": reply.kind,
        "task": reply.task,
        "study": reply.study,
        "round": reply.round,
        "model": reply.model,
        "layout": reply.layout,
        "metrics": dict(reply.metrics),
        "words": dict(reply.words),
    }
    if reply.ledger:
        head["ledger"] = dict(reply.ledger)
    return _record("reply", head, reply.arrays)


def read_reply(record: RecordDict) -> Reply:
    """A reply from records. Raises RefusedByPolicy where there is a record or a key too many or too few."""
    _expect(record, {"reply": ConfigRecord, "arrays": ArrayRecord})
    try:
        head = _head(record, "reply")
        arrays = _arrays(head.pop("arrays"), record["arrays"])
        if not all(isinstance(head[name], dict) for name in ("metrics", "words")):
            raise TypeError("metrics and words have names")
        return Reply(**head, arrays=arrays)
    except Exception:  # noqa: BLE001  another process's bytes
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


def _record(name: str, head: dict[str, Any], arrays: wire.Arrays) -> RecordDict:
    """The head as JSON, with [name, dtype, shape] of each array; all arrays' bytes, little-endian, in one.

    Raises TypeError for an array of anything but numbers.
    """
    given = [[key, str(array.dtype), array.shape] for key, array in arrays.items()]
    packed = b"".join(_bytes_of(array) for array in arrays.values())
    one = {PACKED: Array("uint8", (len(packed),), PACKED, packed)} if given else {}
    text = json.dumps({**head, "arrays": given})
    return RecordDict({name: ConfigRecord({"head": text}), "arrays": ArrayRecord(one)})


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    whole = np.ascontiguousarray(array, dtype=_dtype_of(str(array.dtype)))
    return whole.reshape(-1).view(np.uint8).data


def _arrays(given: Any, record: Any) -> dict[str, npt.NDArray[Any]]:
    """The arrays, once what the head says of them comes to exactly the bytes that are there."""
    parts = cast(ArrayRecord, record)
    if type(given) is not list or set(parts) != ({PACKED} if given else set()):
        raise TypeError("not one packed array")
    data, start = parts[PACKED].data if given else b"", 0
    forms = {name: (_dtype_of(text), tuple(map(_length_of, shape))) for name, text, shape in given}
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in forms.values()]
    if len(forms) != len(given) or sum(sizes) != len(data) or not all(isinstance(key, str) for key in forms):
        raise TypeError("not the arrays that the head tells of")
    found = {}
    for (name, (dtype, shape)), size in zip(forms.items(), sizes, strict=True):
        found[name] = np.ndarray(shape, dtype, data, start).astype(dtype.newbyteorder("="))
        start += size
    return found


def _dtype_of(text: str) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.kind not in NUMBERS or not dtype.isnative or str(dtype) != text:
        raise TypeError("not numbers in the one way that is written")
    return dtype.newbyteorder("<")


def _length_of(number: object) -> int:
    if type(number) is not int or number < 0:
        raise TypeError("not a length")
    return number


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
