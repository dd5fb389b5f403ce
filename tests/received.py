"""What the public listener received, read back from the recorder's files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Request:
    """One request: the call's name (or the whole target where it is no Fleet call), head and body."""

    call: str
    head: dict[str, Any]
    body: bytes


def requests_in(folder: Path) -> Iterator[Request]:
    """Every request, in the order in which they came (one file for each SuperLink process)."""
    for path in sorted(folder.glob("requests-*.bin")):
        with path.open("rb") as file:
            while line := file.readline():
                head = json.loads(line)
                body = file.read(head["bytes"] + 1)[:-1]
                yield Request(head["target"].removeprefix("/v1/fleet/"), head, body)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


@dataclass(frozen=True)
class Pushed:
    """A message that a site pushed: its run, and its error's reason if it is one."""

    node_id: int
    run_id: int
    error: str


def messages_in(folder: Path) -> list[Pushed]:
    """The heads of all messages pushed."""
    from flwr.proto.fleet_pb2 import PushMessagesRequest

    found = []
    for request in requests_in(folder):
        if request.call == "push-messages":
            told = PushMessagesRequest.FromString(request.body)
            for message in told.messages_list:
                reason = message.error.reason if message.HasField("error") else ""
                found.append(Pushed(told.node.node_id, message.metadata.run_id, reason))
    return found


def objects_in(folder: Path) -> list[tuple[int, int, bytes]]:
    """(node id, run id, content) of all objects pushed."""
    from flwr.proto.message_pb2 import PushObjectRequest

    told = [PushObjectRequest.FromString(r.body) for r in requests_in(folder) if r.call == "push-object"]
    return [(t.node.node_id, t.run_id, t.object_content) for t in told]


def runs_asked_for(folder: Path, call: str) -> set[int]:
    """The run ids that `pull-object` or `get-run` requests name."""
    from flwr.proto.message_pb2 import PullObjectRequest
    from flwr.proto.run_pb2 import GetRunRequest

    kind = {"pull-object": PullObjectRequest, "get-run": GetRunRequest}[call]
    return {int(kind.FromString(r.body).run_id) for r in requests_in(folder) if r.call == call}


def arrays_in(folder: Path, node_id: int, run_id: int) -> set[str]:
    """SHA-256 of the values of every array that a site pushed for a run."""
    pushed, found = objects_in(folder), set()
    known = {hashlib.sha256(content).hexdigest(): content for _, _, content in pushed}
    for node, run, content in pushed:
        if (node, run) == (node_id, run_id) and content.startswith(b"RecordDict "):
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # what is no sound message
                found |= set(values_in(content, known))
    return found


def values_in(record: bytes, known: dict[str, bytes]) -> Iterator[str]:
    """SHA-256 of the values of each array of a record, whose parts are among `known` (id -> content)."""
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    whole: Any = inflate_object_from_contents(hashlib.sha256(record).hexdigest(), known)
    start = 0
    for _, dtype, shape in json.loads(whole["reply"]["head"])["arrays"]:
        end = start + np.dtype(dtype).itemsize * math.prod(shape)
        yield hashlib.sha256(whole["arrays"]["packed"].data[start:end]).hexdigest()
        start = end
