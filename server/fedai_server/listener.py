"""The public listener: uvicorn, with the connections accepted here, so that each is counted and has its time.

uvicorn itself waits for a request's head without end and, when it holds its most, turns away whoever comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedai_server.connections import STRANGER_S, Connections, Held

HEAD_S = 15.0  # for the rest of a later request's head, once it has begun
TLS_END_S = 3.0  # for a caller's good-bye
ACCEPT_PAUSE_S = 0.2  # after an accept that failed, as when there are no file descriptors left

logger = logging.getLogger("fedai.server.listener")


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol for one connection, with a deadline for heads; tells when it has ended."""

    held: Held
    holders: Connections
    _head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.holders.remove(self.held)
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """A head has begun and isn't whole: its time runs, and further bytes don't lengthen it."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Listener(uvicorn.Server):
    """One of two servers in a process: leaves signals to whoever runs both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class PublicListener(Listener):
    """Accepts by itself; see the module."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on `sockets`; uvicorn is given none."""
        await super().startup(sockets=[])
        for listener in sockets or []:
            listener.setblocking(False)
            self._spawn(self._accept(listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().shutdown(sockets=sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                plain, address = await loop.sock_accept(listener)
            except OSError as error:
                logger.warning("can't accept: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            task = self._spawn(self._secure(plain, (address[0], address[1])))
            task.set_name("handshake")

    async def _secure(self, plain: socket.socket, client: tuple[str, int]) -> None:
        """TLS; then the connection is uvicorn's, until it ends or we end it."""
        handshake = asyncio.current_task()
        assert handshake is not None
        held = self._connections.add(client, handshake.cancel)
        protocol = GuardedProtocol(self.config, self.server_state, self.lifespan.state)
        protocol.held, protocol.holders = held, self._connections
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, plain, ssl=self.config.ssl,
                ssl_handshake_timeout=STRANGER_S, ssl_shutdown_timeout=TLS_END_S,
            )  # fmt: skip
            held.end = transport.abort
        except (OSError, asyncio.CancelledError):
            self._connections.remove(held)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
