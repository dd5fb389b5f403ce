"""An agent whose training code calls somebody else, for tests: `calling_task.py HOME PORT SERVER_PORT`.

It is confined to SERVER_PORT of this machine as `fedai site start` confines it, does a task for each way of
calling PORT, and prints what would leave as JSON: way -> the error, '' for an answer.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedai_site.agent import Agent, log_to
from fedai_site.client_app import Bench
from fedai_site.confinement import confine, destinations
from fedai_site.fleet import Envelope, RunFacts
from fedai_site.home import open_home
from flwr.app import Message
from replies_to import STUDY, message_of, task_of

from fedai.release import BUNDLE_SHA256

HERE = "127.0.0.1"


class Line:
    """A connection on which one task lies ready."""

    def facts_of(self, run_id: int) -> RunFacts:
        return RunFacts(run_id, BUNDLE_SHA256, STUDY.canonical())

    def fetch(self, envelope: Envelope, limit: int) -> Message:
        return envelope.head


def listen(port: int) -> None:
    socket.socket().bind((HERE, 0))


def send(port: int) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"pixels", (HERE, port))


def swallow(port: int) -> None:
    """As a library that phones home and doesn't mind."""
    with suppress(OSError):
        socket.create_connection((HERE, port))


WAYS: dict[str, Callable[[int], Any]] = {
    "connect": lambda port: socket.create_connection((HERE, port)),
    "library": lambda port: urllib.request.urlopen(f"http://{HERE}:{port}/", timeout=5),
    "name": lambda port: socket.getaddrinfo("telemetry.invalid", port),
    "send": send,
    "listen": listen,
    "unbound": lambda port: socket.socket().listen(),
    "swallow": swallow,
    "none": lambda port: None,
}


def answered(agent: Agent, way: str) -> str:
    run = list(WAYS).index(way) + 1
    envelope = Envelope(message_of(task_of("train", run=f"calls-{way}"), run), None)
    message = agent._answer(Line(), envelope).message  # type: ignore[arg-type]
    return str(message.error.reason) if message.has_error() else ""


def main(folder: str, port: str, server: str) -> None:
    home, train = open_home(Path(folder)), Bench._train
    log_to(home.log)
    confine(destinations(f"{HERE}:{server}"))
    socket.create_connection((HERE, int(server))).close()

    def calling(self: Bench, task: Any) -> Any:
        WAYS[task.run.removeprefix("calls-")](int(port))
        return train(self, task)

    Bench._train = calling  # type: ignore[method-assign]
    agent = Agent(home, threading.Event(), tell=lambda _: None)
    print(json.dumps({way: answered(agent, way) for way in WAYS}))


if __name__ == "__main__":
    main(*sys.argv[1:])
