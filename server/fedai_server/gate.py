"""What each listener of the SuperLink lets through: ASGI filters in front of Flower's one application.

Flower serves Control, Runtime and Fleet calls, documentation and health from one application. Whoever
reaches the Control calls can start runs. So sites reach it through `PublicGate` alone, which knows the ten
calls that a site makes and answers 404 to everything else, 401 to a call that no admitted key has signed,
before it has read any body, and 403 to one that is not the caller's to make (see callers.py); this machine
reaches it through `LoopbackGate`, which asks for a token before anything but the Runtime calls (they carry
secrets of their own), and hands on what the token's role allows once it is in the server's ledger.

A request goes on only if its path is one of the ten byte for byte, undecoded; nothing is normalised, so
there are no two readings of it. Each connection belongs to one listener and one gate for its whole life.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedai.errors import FedaiError

if TYPE_CHECKING:
    from fedai_server.callers import Caller
    from fedai_server.roles import Holder

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET_CALLS = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
    "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
PUBLIC_PATHS = frozenset(f"/v1/fleet/{call}" for call in FLEET_CALLS)
LARGE_PATH = "/v1/fleet/push-object"  # the one call with content; what else is parsed stays small
MOST_SMALL_BYTES = 200_000  # the list of an update's pieces, 70 bytes each
BODY_PAUSE_S = 15.0  # longest time without a byte of a body
SLOWEST_BYTES_S = 1000  # and on average, after that time
RUNTIME_PREFIX = "/v1/runtime/"
HEALTH_PATH = "/health"
TOKEN_HEADER = "x-fedai-control"  # noqa: S105  a header's name
HOST_HEADER = re.compile(rb"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
LOOPBACK_HOSTS = re.compile(rb"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
LONGEST_LENGTH = 15  # digits of a Content-Length
REFUSALS_LOGGED_EVERY_S = 1.0
UNKNOWN = b'{"detail": "Invalid SuperNode authentication"}'  # as Flower says it
NOT_YOURS = b'{"code": 2007, "detail": "Not for this caller, or no more."}'  # 2007: the run is over

NOT_YOUR_ROLE = b'{"detail": "The token was revoked, or its role does not allow this call."}'
NOT_WRITTEN = b'{"detail": "The call could not be written to the server\'s ledger; nothing was done."}'

logger = logging.getLogger("fedai.server.gate")


class Doorkeeper(Protocol):
    """What the gate asks of callers.Callers."""

    def identify(self, headers: Any) -> Caller | None: ...
    def objection(self, path: str, body: bytes, caller: Caller) -> str | None: ...
    def name_of(self, caller: Caller) -> str: ...


class PublicGate:
    """Let the ten Fleet calls of admitted sites through, as POST, with a body up to `maximum_bytes`.

    `know` is told which connection (host, port) turned out to be which site's (node id).
    """

    def __init__(
        self, app: App, callers: Doorkeeper, *, maximum_bytes: int, know: Callable[[Any, int], None]
    ) -> None:
        self._app = app
        self._callers = callers
        self._maximum_bytes = maximum_bytes
        self._know = know
        self._log = _RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the public listener serves no {scope['type']}")
        if not is_fleet_call(scope):
            self._log.add(scope)
            await answer(send, 404)
            return
        caller = await asyncio.to_thread(self._callers.identify, scope["headers"])
        if caller is None:
            self._log.add(scope)
            await answer(send, 401, UNKNOWN)
            return
        self._know(scope.get("client"), caller.node_id)
        await self._serve(caller, scope, receive, send)

    async def _serve(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        maximum = self._maximum_bytes if path == LARGE_PATH else min(MOST_SMALL_BYTES, self._maximum_bytes)
        try:
            too_much = declares_more_than(scope, maximum)
            pieces = None if too_much else await read_body(in_time(receive), maximum)
        except TimeoutError:
            self._log.add(scope)
            await answer(send, 408)
            return
        if pieces is None:
            self._log.add(scope)
            await answer(send, 413)
            return
        if pieces[-1]["type"] == "http.disconnect":
            return
        body = b"".join(piece.get("body", b"") for piece in pieces)
        objection = await asyncio.to_thread(self._callers.objection, path, body, caller)
        if objection is not None:
            site = await asyncio.to_thread(self._callers.name_of, caller)
            logger.warning("refused %s of %s: %s", path, site, objection, extra={"site": site})
            await answer(send, 403, NOT_YOURS)
            return
        await self._app(scope, replay(pieces, receive), send)


class Register(Protocol):
    """What the gate asks of ledger.Desk."""

    def holder(self, token: bytes) -> Holder | None: ...
    def admits(self, holder: Holder, path: str, body: bytes) -> bool: ...


class LoopbackGate:
    """For this machine: Runtime calls and health as they are, all else with a token; else 403.

    Each call with a token is written down by the `desk` before it goes on: 403 where the role doesn't allow
    it, 503 where it can't be written. A browser on this machine must not be turned against us: requests with
    an Origin, or under another name than loopback's, are refused.
    """

    def __init__(self, app: App, *, desk: Register, maximum_bytes: int) -> None:
        self._app = app
        self._desk = desk
        self._maximum_bytes = maximum_bytes
        self._log = _RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the loopback listener serves no {scope['type']}")
        host = _header(scope, b"host")
        if host is None or not LOOPBACK_HOSTS.fullmatch(host) or _header(scope, b"origin") is not None:
            await answer(send, 403)
            return
        if needs_no_token(scope):
            await self._app(scope, receive, send)
            return
        token = _header(scope, TOKEN_HEADER.encode()) or b""
        holder = await asyncio.to_thread(self._desk.holder, token)
        if holder is None:
            self._log.add(scope)
            await answer(send, 403)
            return
        await self._serve(holder, scope, receive, send)

    async def _serve(self, holder: Holder, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = await read_body(receive, self._maximum_bytes)
        if pieces is None:
            await answer(send, 413)
            return
        if pieces[-1]["type"] == "http.disconnect":
            return
        body = b"".join(piece.get("body", b"") for piece in pieces)
        try:
            allowed = await asyncio.to_thread(self._desk.admits, holder, scope["path"], body)
        except FedaiError as error:
            logger.error("%.120r of %s isn't done: %s", scope["path"], holder.name, error)
            await answer(send, 503, NOT_WRITTEN)
            return
        if not allowed:
            await answer(send, 403, NOT_YOUR_ROLE)
            return
        await self._app(scope, replay(pieces, receive), send)


class Recorder:
    """Append the head and the body of every request to one file of `folder`, before anybody answers it.

    Meant for audits and the demo's search for leaks: what sites sent rests there as it came, uncompressed.
    A body longer than `maximum_bytes` is recorded up to there; one that says so beforehand is not read.
    """

    def __init__(self, app: App, folder: Path, *, maximum_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._app = app
        self._path = folder / f"requests-{time.time_ns()}.bin"
        self._maximum_bytes = maximum_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_much = declares_more_than(scope, self._maximum_bytes)
        pieces = [] if too_much else await read_body(receive, self._maximum_bytes, keep=True) or []
        self._write(scope, b"".join(piece.get("body", b"") for piece in pieces))
        await self._app(scope, replay(pieces, receive), send)

    def _write(self, scope: Scope, body: bytes) -> None:
        head = {
            "client": scope.get("client"),
            "method": scope["method"],
            "target": (scope.get("raw_path") or b"").decode("latin-1"),
            "query": scope["query_string"].decode("latin-1"),
            "headers": [[part.decode("latin-1") for part in header] for header in scope["headers"]],
            "bytes": len(body),
        }
        with self._path.open("ab") as file:
            file.write(json.dumps(head).encode() + b"\n" + body + b"\n")


async def read_body(receive: Receive, maximum_bytes: int, *, keep: bool = False) -> list[Message] | None:
    """Read a whole body in pieces; beyond `maximum_bytes` None, or with `keep` what came until then."""
    pieces: list[Message] = []
    size = 0
    while not pieces or pieces[-1].get("more_body", False):
        pieces.append(await receive())
        size += len(pieces[-1].get("body", b""))
        if size > maximum_bytes:
            return pieces if keep else None
    return pieces


def in_time(receive: Receive) -> Receive:
    """A `receive` that raises TimeoutError for a body that stands still, or comes too slowly."""
    started, size = time.monotonic(), 0

    async def soon() -> Message:
        nonlocal size
        left = BODY_PAUSE_S + size / SLOWEST_BYTES_S - (time.monotonic() - started)
        async with asyncio.timeout(max(0.0, min(BODY_PAUSE_S, left))):
            piece = await receive()
        size += len(piece.get("body", b""))
        return piece

    return soon


def replay(pieces: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives `pieces` first and then what `receive` gives."""
    waiting = iter(pieces)

    async def again() -> Message:
        piece = next(waiting, None)
        return piece if piece is not None else await receive()

    return again


def is_fleet_call(scope: Scope) -> bool:
    """Is this one of the ten calls, written plainly?"""
    path = scope["path"]
    return (
        scope["method"] == "POST"
        and path in PUBLIC_PATHS
        and scope.get("raw_path") == path.encode()
        and not scope["query_string"]
        and not scope.get("root_path")
        and _has_plain_headers(scope)
    )


def declares_more_than(scope: Scope, maximum_bytes: int) -> bool:
    """Does the head announce a longer body (or none that is a number)?"""
    length = _header(scope, b"content-length") or b"0"
    return not (length.isdigit() and len(length) <= LONGEST_LENGTH) or int(length) > maximum_bytes


def needs_no_token(scope: Scope) -> bool:
    """A call of a ServerApp's process, or of the one that starts it, or the question whether we live."""
    path = scope["path"]
    return (path == HEALTH_PATH or path.startswith(RUNTIME_PREFIX)) and not scope.get("root_path")


async def answer(send: Send, status: int, told: bytes = b"") -> None:
    """Answer with nothing or a line of JSON, and close: what is unread must not be a next request."""
    headers = [(b"content-length", str(len(told)).encode()), (b"connection", b"close")]
    if told:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def _has_plain_headers(scope: Scope) -> bool:
    """One Host that is a host, one way of saying how long the body is, no change of protocol."""
    names = [name.lower() for name, _ in scope["headers"]]
    host = _header(scope, b"host")
    length = _header(scope, b"content-length")
    return (
        host is not None
        and HOST_HEADER.fullmatch(host) is not None
        and all(names.count(name) <= 1 for name in (b"host", b"content-length", b"transfer-encoding"))
        and not (b"content-length" in names and b"transfer-encoding" in names)
        and (length is None or (length.isdigit() and len(length) <= LONGEST_LENGTH))
        and b"upgrade" not in names
    )


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((bytes(value) for name, value in scope["headers"] if name.lower() == wanted), None)


class _RefusalLog:
    """One line a second at most, so that nobody fills our disk with refusals."""

    def __init__(self) -> None:
        self._written = 0.0
        self._held_back = 0

    def add(self, scope: Scope) -> None:
        now = time.monotonic()
        if now - self._written < REFUSALS_LOGGED_EVERY_S:
            self._held_back += 1
            return
        client = (scope.get("client") or ("?",))[0]
        target = (scope.get("raw_path") or b"")[:120]
        logger.warning(
            "refused %.10r %r from %s (and %d more before)", scope["method"], target, client, self._held_back
        )
        self._written, self._held_back = now, 0
