"""One round in a process of its own: `python -m benchmarks.round_memory.replay STRATEGY REPLIES MEGABYTES`.

A reply is made when it is pulled, as bytes the way Flower carries it, inflated by Flower, and goes through
the run's own loop: `Correspondence.ask`, `read_reply`, `wire.check`, the strategy. Prints the peak of
resident memory in bytes before the round and after it, and its seconds.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fedai_server.rounds import Correspondence, Patience, same_task
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from pydantic import TypeAdapter

from fedai import wire
from fedai.flower import reply_record
from fedai.strategies import Conditions, Rule, Strategy
from fedai.study import Study
from fedai.weights import Entry, Layout, Weights
from fedai.wire import Reply, Task


@dataclass(frozen=True)
class Node:
    """A site that is online."""

    name: str
    node_id: int
    last_activated_at: str = "now"


@dataclass
class Replay:
    """A Grid whose sites have all answered; an answer exists from when it is pulled until it is dropped."""

    study: Study
    layout: Layout
    task: Task
    asked: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._nodes = [Node(name, number) for number, name in enumerate(self.study.sites, start=10)]

    def get_nodes(self) -> list[Node]:
        return self._nodes

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{next(self._numbers)}"
            node = message.metadata.dst_node_id
            self.asked[message.metadata.message_id] = Message(
                RecordDict(), dst_node_id=node, message_type="train"
            )
            self.asked[message.metadata.message_id].metadata.__dict__.update(message.metadata.__dict__)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        return [
            _as_flower_carries_it(Message(self._record(), reply_to=self.asked.pop(i))) for i in message_ids
        ]

    def _record(self) -> RecordDict:
        form = wire.form_of(self.task, self.study, self.layout)
        rng = np.random.default_rng(len(self.asked))
        arrays = {
            name: rng.random(shape, np.float32) if dtype == "float32" else np.ones(shape, dtype)
            for name, (dtype, shape) in form.arrays.items()
        }
        metrics = {name: kind(1) for name, kind in form.metrics.items()}
        reply = Reply("update", "train", self.task.study, 1, "", self.layout.sha256, arrays, metrics)
        return reply_record(reply)


def _as_flower_carries_it(message: Message) -> Message:
    head = message.metadata
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    identifier, _ = message.object_id, message.__dict__.clear()
    found: Any = inflate_object_from_contents(identifier, objects)
    found.metadata.__dict__.update(head.__dict__)
    return found


def main() -> None:
    """One round, and what it took."""
    name, replies, megabytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for attribute in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, attribute, 1)
    rule: Rule = TypeAdapter(Strategy).validate_python({"name": name})
    layout = Layout((Entry("w", (megabytes * 250_000,), "float32"),), (), ())
    study = _study(replies, megabytes)
    task = Task("train", study.sha256, "memory-1", 1, layout=layout.to_json(), arrays=_start(layout))
    before = _peak()
    gathered, begun = rule.gather(Conditions(layout)), time.monotonic()

    def fold(site: str, reply: Reply) -> None:
        gathered.add(site, Weights.of(dict(reply.arrays)), int(reply.metrics["cases"]), 1, reply.arrays)

    post = Correspondence(Replay(study, layout, task), study, layout)
    asked = post.ask(same_task(task, study.sites), Patience(replies, 0, 86_400), fold)
    update = gathered.update()
    facts = {"before": before, "peak": _peak(), "seconds": time.monotonic() - begun}
    facts |= {"answered": len(asked.answered), "values": int(update.parameters.size)}
    print(json.dumps(facts))


def _start(layout: Layout) -> dict[str, Any]:
    size = layout.sizes()["parameters"]
    none = np.zeros(0, np.float32)
    return Weights(np.zeros(size, np.float32), none, np.zeros(0, np.int64)).arrays()


def _study(replies: int, megabytes: int) -> Study:
    return Study.model_validate(
        {
            "name": "memory",
            "purpose": "Measures the memory of a round.",
            "task": {"classes": ["a", "b"]},
            "sites": [f"site-{number}" for number in range(replies)],
            "network": {"name": "ResNet"},
            "training": {"rounds": 1},
            "rounds": {"quorum": replies, "max_update_mb": 2 * megabytes},
        }
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
