"""Flower's Grid in the ServerApp's process, made to look again sooner and to take in no more than it should.

An answer is listed as soon as its site has begun to send it, so the server, which asks often, nearly always
meets objects that are still under way. Flower then sleeps 1 s, 2 s, 4 s ... while the round stands still. And
it fetches and inflates whatever a site has sent before anybody can look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedai.errors import RefusedByPolicy
from fedai.flower import MOST_OBJECTS, check_objects, pulled_within

FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 1.0


def prepare(maximum_bytes: int) -> None:
    """From now on, in this process, a missing object is asked for again after 0.05 s, growing to 1 s, and an
    answer larger than `maximum_bytes`, or one that can't be put together, raises RefusedByPolicy.
    """
    from flwr.supercore.inflatable import inflatable_utils
    from flwr.superlink.grid import http_grid

    def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
        if len(object_ids) > MOST_OBJECTS:
            raise RefusedByPolicy("the message has more parts than a task or reply has")
        pulled: dict[str, bytes] = inflatable_utils.pull_objects(
            object_ids, pulled_within(pull_object_fn, maximum_bytes),
            initial_backoff=FIRST_RETRY_S, backoff_cap=LONGEST_RETRY_S,
        )  # fmt: skip
        return pulled

    def inflate(object_id: str, objects: dict[str, bytes]) -> Any:
        check_objects(objects, maximum_bytes)
        try:
            return inflatable_utils.inflate_object_from_contents(object_id, objects)
        except Exception:  # noqa: BLE001  another process's bytes
            raise RefusedByPolicy("the message can't be put together") from None

    http_grid.pull_objects = pull
    http_grid.inflate_object_from_contents = inflate
