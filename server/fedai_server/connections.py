"""Who holds a connection to the public port, and for how long.

A connection is a stranger's until a call on it bore the signature of an admitted key. A stranger has a few
seconds for that, handshake and all. Where there are too many, the stranger that has waited longest goes, so
that a site, which signs its first call, finds room however many strangers come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Client = tuple[str, int]
STRANGER_S = 15.0  # from the connection to the head of a signed call
MOST_OF_AN_ADDRESS = 32  # strangers; a hospital's sites may share an address
MOST_OF_A_SITE = 8  # an agent needs three or four


class Clock(Protocol):
    """What is used of an event loop."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...


@dataclass(eq=False)
class Held:
    """A connection; `end` ends it at once."""

    client: Client
    end: Callable[[], Any]
    node_id: int | None = None
    timer: Any = None


class Connections:
    """The connections of one listener, at most `most`."""

    def __init__(self, most: int, clock: Callable[[], Clock]) -> None:
        self._most = most
        self._clock = clock
        self._strangers: dict[Client, Held] = {}  # the oldest first
        self._sites: dict[Client, Held] = {}  # the longest unused first

    def __len__(self) -> int:
        return len(self._strangers) + len(self._sites)

    def add(self, client: Client, end: Callable[[], Any]) -> Held:
        """A stranger has come; another may have to go."""
        held = Held(client, end)
        self._strangers[client] = held
        held.timer = self._clock().call_later(STRANGER_S, self._end_if_strange, held)
        neighbours = [other for other in self._strangers.values() if other.client[0] == client[0]]
        if len(neighbours) > MOST_OF_AN_ADDRESS:
            self._end(neighbours[0])
        elif len(self) > self._most:
            self._end(next(iter(self._strangers.values())))
        return held

    def know(self, client: Client, node_id: int) -> None:
        """A call on this connection was a site's; of too many of one site the longest unused goes."""
        held = self._strangers.pop(client, None) or self._sites.pop(client, None)
        if held is None:
            return
        held.timer.cancel()
        held.node_id = node_id
        self._sites[client] = held
        own = [other for other in self._sites.values() if other.node_id == node_id]
        if len(own) > MOST_OF_A_SITE:
            self._end(own[0])

    def remove(self, held: Held) -> None:
        """It has ended."""
        held.timer.cancel()
        for group in (self._strangers, self._sites):
            if group.get(held.client) is held:
                del group[held.client]

    def _end_if_strange(self, held: Held) -> None:
        if held.node_id is None:
            self._end(held)

    def _end(self, held: Held) -> None:
        self.remove(held)
        held.end()
