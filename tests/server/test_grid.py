"""Answers that are still under way are fetched soon after they have come, and no more than a study allows."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fedai_server.grid import prepare
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from replies_to import reply_to, task_of

from fedai.errors import RefusedByPolicy
from fedai.flower import read_reply, reply_record


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's module with our functions in it, put back after the test."""
    from flwr.superlink.grid import http_grid

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(http_grid, "pull_objects", http_grid.pull_objects)
    monkeypatch.setattr(http_grid, "inflate_object_from_contents", http_grid.inflate_object_from_contents)
    prepare(1_000_000)
    return http_grid


def test_an_object_that_comes_a_little_later_is_there_long_before_flowers_second(grid: Any) -> None:
    from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

    asked = []

    def pull(key: str) -> bytes:
        asked.append(key)
        if len(asked) < 3:
            raise ObjectUnavailableError(key)
        return b"content"

    begun = time.monotonic()
    assert grid.pull_objects(object_ids=["a"], pull_object_fn=pull) == {"a": b"content"}
    assert len(asked) == 3
    assert time.monotonic() - begun < 1


def test_flowers_grid_pulls_and_inflates_by_the_functions_that_are_replaced() -> None:
    from flwr.superlink.grid import http_grid

    used = http_grid.HttpGrid.pull_messages.__code__.co_names
    assert {"pull_objects", "inflate_object_from_contents"} <= set(used)


def test_of_an_answer_that_is_too_large_no_more_is_fetched_than_shows_it(grid: Any) -> None:
    asked = []

    def pull(key: str) -> bytes:
        asked.append(key)
        return bytes(1_000_000)

    with pytest.raises(RefusedByPolicy, match="larger than the 1,000,000 bytes"):
        grid.pull_objects(object_ids=[str(n) for n in range(100)], pull_object_fn=pull)
    assert len(asked) < 10
    with pytest.raises(RefusedByPolicy, match="more parts"):
        grid.pull_objects(object_ids=[str(n) for n in range(3000)], pull_object_fn=pull)


def test_a_real_answer_is_put_together_and_what_is_none_is_refused(grid: Any) -> None:
    message = Message(reply_record(reply_to(task_of("train"))), 1, "train")
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    reply = read_reply(grid.inflate_object_from_contents(message.object_id, dict(objects)).content)
    assert np.array_equal(reply.arrays["parameters"], reply_to(task_of("train")).arrays["parameters"])
    torn = {key: content for key, content in objects.items() if not content.startswith(b"ArrayChunk")}
    with pytest.raises(RefusedByPolicy, match="not Flower's"):
        grid.inflate_object_from_contents(message.object_id, torn)
    with pytest.raises(RefusedByPolicy, match="put together"):
        grid.inflate_object_from_contents("not there", dict(objects))
