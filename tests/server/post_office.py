"""A Grid in this process: what the round loop uses of Flower's, with sites that are written in the test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict

from fedai.errors import RefusedByPolicy
from fedai.flower import read_task, reply_record
from fedai.wire import Reply, Task

TORN = "torn"  # a record of this name stands for objects that grid.py refuses
Answer = Reply | Error | RecordDict | None
Script = Callable[[Task], Answer]


@dataclass
class Node:
    """A site that is online, as Flower tells of it."""

    name: str
    node_id: int
    last_activated_at: str = "t1"


@dataclass
class Site:
    """What a site does with a task: nothing, or an answer after `delay_s`."""

    script: Script
    delay_s: float = 0.0
    asked: list[Task] = field(default_factory=list)


@dataclass
class PostOffice:
    """`sites` answer what they are pushed; `nodes` are those online."""

    sites: dict[str, Site]
    nodes: dict[str, Node] = field(default_factory=dict)
    replies: dict[str, tuple[float, Message]] = field(default_factory=dict)
    pulled_of: list[str] = field(default_factory=list)
    owner: dict[str, str] = field(default_factory=dict)
    refuse_pushes: int = 0
    forge: Callable[[Message], None] = lambda reply: None  # changes what an answer says of itself

    def __post_init__(self) -> None:
        self.numbers = itertools.count(1)
        for number, name in enumerate(self.sites, start=10):
            self.nodes.setdefault(name, Node(name, number))

    def get_nodes(self) -> list[Node]:
        return list(self.nodes.values())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        if self.refuse_pushes:
            self.refuse_pushes -= 1
            return ""
        identifier = f"m{next(self.numbers)}"
        message.metadata.__dict__["_message_id"] = identifier
        (name,) = [node.name for node in self.nodes.values() if node.node_id == message.metadata.dst_node_id]
        self.owner[identifier] = name
        site = self.sites[name]
        site.asked.append(read_task(message.content))
        answer = site.script(site.asked[-1])
        if answer is not None:
            self.answer(message, answer, site.delay_s)
        return identifier

    def answer(self, message: Message, answer: Answer, delay_s: float = 0.0) -> None:
        content = reply_record(answer) if isinstance(answer, Reply) else answer
        reply = Message(content, reply_to=message)
        self.forge(reply)
        self.replies[message.metadata.message_id] = (time.monotonic() + delay_s, reply)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        now, wanted = time.monotonic(), list(message_ids)
        self.pulled_of += [self.owner[identifier] for identifier in wanted]
        there = [
            identifier
            for identifier in wanted
            if identifier in self.replies and self.replies[identifier][0] <= now
        ]
        found = [self.replies.pop(identifier)[1] for identifier in there]
        if any(message.has_content() and TORN in message.content for message in found):
            raise RefusedByPolicy("the message can't be put together")  # as grid.py does
        return found
