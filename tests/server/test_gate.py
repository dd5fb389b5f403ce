"""The gates, asked directly as ASGI applications: what they pass on, and what they do with bodies."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fedai_server import gate as gates
from fedai_server.callers import Caller
from fedai_server.gate import LARGE_PATH, PUBLIC_PATHS, LoopbackGate, PublicGate, Recorder
from fedai_server.roles import Holder
from hypothesis import given
from hypothesis import strategies as some

from fedai.errors import DataError

PATH = "/v1/fleet/pull-messages"
HOST = (b"host", b"fed.example.org:8443")


def scope(path: str = PATH, **changes: Any) -> dict[str, Any]:
    made = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": [HOST], "client": ("192.0.2.1", 5)}  # fmt: skip
    return made | changes


class Behind:
    """The application behind a gate: remembers the bodies it was given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(gate: Any, scope: dict[str, Any], pieces: list[bytes] | None = None) -> int:
    """Send one request in pieces; gives the status."""
    sent: list[dict[str, Any]] = []
    waiting: Iterator[bytes] = iter(pieces or [b""])
    left = len(pieces or [b""])

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": next(waiting), "more_body": left > 0}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return int(sent[0]["status"])


class Doorkeeper:
    """Knows everybody but those with a header that says stranger; objects to one body."""

    def identify(self, headers: Any) -> Caller | None:
        return None if (b"stranger", b"") in headers else Caller(7, b"")

    def objection(self, path: str, body: bytes, caller: Caller) -> str | None:
        return "a message in another site's name" if body == b"forged" else None

    def name_of(self, caller: Caller) -> str:
        return "north"


def public(behind: Any, maximum_bytes: int = 100, known: list[Any] | None = None) -> PublicGate:
    told = known if known is not None else []
    return PublicGate(behind, Doorkeeper(), maximum_bytes=maximum_bytes, know=lambda *fact: told.append(fact))


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS))
def test_each_of_the_ten_calls_passes_with_its_body(path: str) -> None:
    behind = Behind()
    assert ask(public(behind), scope(path), [b"ab", b"", b"cd"]) == 200
    assert behind.bodies == [b"abcd"]


def test_there_are_ten_calls() -> None:
    assert len(PUBLIC_PATHS) == 10


@given(some.text(max_size=60) | some.sampled_from(sorted(PUBLIC_PATHS)).map(lambda path: path + "/"))
def test_no_other_path_passes(path: str) -> None:
    behind = Behind()
    if path not in PUBLIC_PATHS:
        assert ask(public(behind), scope(path, raw_path=path.encode("utf-8", "replace"))) == 404
        assert behind.bodies == []


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"}, {"method": "HEAD"}, {"method": "OPTIONS"}, {"method": "post"}, {"method": "PUT"},
        {"raw_path": b"/v1/fleet/pull%2dmessages"}, {"raw_path": b"/v1//fleet/pull-messages"},
        {"raw_path": None},
        {"query_string": b"x=1"}, {"root_path": "/v1/control"},
        {"headers": []}, {"headers": [HOST, HOST]},
        {"headers": [(b"host", b"a/v1/control/list-runs?")]}, {"headers": [(b"host", b"user@a")]},
        {"headers": [(b"host", b"a#b")]}, {"headers": [(b"host", b"")]},
        {"headers": [HOST, (b"upgrade", b"websocket")]},
        {"headers": [HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")]},
        {"headers": [HOST, (b"content-length", b"5"), (b"content-length", b"6")]},
        {"headers": [HOST, (b"content-length", b"-5")]},
        {"headers": [HOST, (b"content-length", b"9" * 5000)]},
    ],
)  # fmt: skip
def test_a_call_written_in_another_way_does_not_pass(changes: dict[str, Any]) -> None:
    behind = Behind()
    assert ask(public(behind), scope(**changes)) == 404
    assert behind.bodies == []


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    behind = Behind()
    assert ask(public(behind), scope(headers=[HOST, (b"content-length", b"101")]), [b""]) == 413
    assert ask(public(behind), scope(headers=[HOST, (b"content-length", b"100")]), [b"x" * 100]) == 200


def test_a_body_that_grows_too_large_is_refused() -> None:
    behind = Behind()
    assert ask(public(behind), scope(), [b"x" * 60, b"x" * 41]) == 413
    assert behind.bodies == []


async def reads(*_: Any) -> Any:
    raise AssertionError("the body was read")


def test_of_a_stranger_no_body_is_read() -> None:
    sent, known, behind = [], [], Behind()

    async def send(message: Any) -> None:
        sent.append(message)

    asked = scope(headers=[HOST, (b"stranger", b""), (b"content-length", b"90")])
    asyncio.run(public(behind, known=known)(asked, reads, send))
    assert sent[0]["status"] == 401
    assert sent[1]["body"] == b'{"detail": "Invalid SuperNode authentication"}'
    assert (b"connection", b"close") in sent[0]["headers"]
    assert (known, behind.bodies) == ([], [])


def test_the_connection_of_a_known_site_is_told_of() -> None:
    known: list[Any] = []
    assert ask(public(Behind(), known=known), scope()) == 200
    assert known == [(("192.0.2.1", 5), 7)]


def test_only_the_call_with_content_may_be_large() -> None:
    gate = public(Behind(), maximum_bytes=10_000_000)
    large = [b"x" * 200_001]
    assert ask(gate, scope(LARGE_PATH), large) == 200
    others = PUBLIC_PATHS - {LARGE_PATH}
    assert {path: ask(gate, scope(path), large) for path in others} == dict.fromkeys(others, 413)


def ask_slowly(pause_s: float, piece: bytes, many: int) -> int:
    """Send a body in `many` pieces with pauses; the status."""
    sent: list[Any] = []
    left = many

    async def receive() -> dict[str, Any]:
        nonlocal left
        await asyncio.sleep(pause_s)
        left -= 1
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(public(Behind(), 10_000)(scope(LARGE_PATH), receive, send))
    return int(sent[0]["status"])


def test_a_body_that_stands_still_or_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "BODY_PAUSE_S", 0.2)
    assert ask_slowly(5, b"x", 2) == 408
    assert ask_slowly(0.02, b"x", 1000) == 408
    assert ask_slowly(0.02, b"x" * 40, 20) == 200


def test_what_is_not_the_callers_to_say_goes_no_further_and_the_site_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    behind = Behind()
    with caplog.at_level(logging.WARNING):
        assert ask(public(behind), scope("/v1/fleet/push-messages"), [b"forged"]) == 403
    assert behind.bodies == []
    assert "refused /v1/fleet/push-messages of north: a message in another site's name" in caplog.text


def test_a_caller_that_hangs_up_midway_reaches_nobody() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there to hear it")

    behind = Behind()
    asyncio.run(public(behind)(scope(), receive, send))
    assert behind.bodies == []


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    asyncio.run(public(Behind())({"type": "websocket", "path": PATH}, receive, send))
    assert sent == ["websocket.close"]


def test_refusals_are_logged_once_a_second_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    gate = public(Behind())
    for _ in range(50):
        ask(gate, scope("/docs\nINFO all is well"))
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


LOCAL = (b"host", b"127.0.0.1:8444")
TOKEN = (b"x-fedai-control", b"token")
WATCHER = (b"x-fedai-control", b"watcher")


class Desk:
    """Knows two tokens; remembers what it was told before the application got it."""

    def __init__(self, behind: Behind, full: bool = False) -> None:
        self.behind, self.full = behind, full
        self.told: list[tuple[str, str, bytes]] = []

    def holder(self, token: bytes) -> Holder | None:
        known = {b"token": Holder("control", "coordinator"), b"watcher": Holder("eve", "observer")}
        return known.get(token)

    def admits(self, holder: Holder, path: str, body: bytes) -> bool:
        if self.full:
            raise DataError("the disk is full")
        assert body not in self.behind.bodies
        self.told.append((holder.name, path, body))
        return holder.may(path)


def loopback(behind: Behind, desk: Desk | None = None) -> LoopbackGate:
    return LoopbackGate(behind, desk=desk or Desk(behind), maximum_bytes=100)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/control/list-runs", [LOCAL, TOKEN], 200),
        ("/v1/control/list-runs", [(b"host", b"localhost"), TOKEN], 200),
        ("/v1/control/list-runs", [LOCAL, WATCHER], 200),
        ("/v1/control/list-nodes", [LOCAL, WATCHER], 200),
        ("/v1/control/stream-logs", [LOCAL, WATCHER], 200),
        ("/v1/control/stop-run", [LOCAL, TOKEN], 200),
        ("/v1/control/stop-run", [LOCAL, WATCHER], 403),
        ("/v1/control/start-run", [LOCAL, WATCHER], 403),
        ("/v1/control/register-node", [LOCAL, WATCHER], 403),
        ("/v1/control/pull-artifacts", [LOCAL, WATCHER], 403),
        ("/v1/fleet/pull-messages", [LOCAL, WATCHER], 403),
        ("/docs", [LOCAL, WATCHER], 403),
        ("/v1/control/list-runs", [LOCAL], 403),
        ("/v1/control/list-runs", [LOCAL, (b"x-fedai-control", b"tokem")], 403),
        ("/v1/control/list-runs", [LOCAL, (b"x-fedai-control", b"")], 403),
        ("/v1/control/list-runs", [(b"host", b"evil.example.org"), TOKEN], 403),
        ("/v1/control/list-runs", [LOCAL, TOKEN, (b"origin", b"https://evil.example.org")], 403),
        ("/v1/runtime/pull-messages", [LOCAL], 200),
        ("/v1/runtime/pull-messages", [(b"host", b"rebound.example.org")], 403),
        ("/v1/runtime", [LOCAL], 403),
        ("/v1/fleet/pull-messages", [LOCAL], 403),
        ("/docs", [LOCAL], 403),
        ("/health", [LOCAL], 200),
    ],
)
def test_on_loopback_all_but_runtime_calls_need_the_token(
    path: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    assert ask(loopback(Behind()), scope(path, headers=headers)) == status


def test_a_call_is_written_down_whole_before_it_is_handed_on_allowed_or_not() -> None:
    behind = Behind()
    desk = Desk(behind)
    gate = loopback(behind, desk)
    assert ask(gate, scope("/v1/control/stop-run", headers=[LOCAL, TOKEN]), [b"run ", b"7"]) == 200
    assert ask(gate, scope("/v1/control/stop-run", headers=[LOCAL, WATCHER]), [b"run 8"]) == 403
    assert desk.told == [
        ("control", "/v1/control/stop-run", b"run 7"),
        ("eve", "/v1/control/stop-run", b"run 8"),
    ]
    assert behind.bodies == [b"run 7"]


def test_a_call_that_can_not_be_written_down_or_is_too_large_is_not_handed_on() -> None:
    behind = Behind()
    assert (
        ask(loopback(behind, Desk(behind, full=True)), scope("/v1/control/x", headers=[LOCAL, TOKEN])) == 503
    )
    large = scope("/v1/control/start-run", headers=[LOCAL, TOKEN])
    assert ask(loopback(behind), large, [b"x" * 60, b"x" * 41]) == 413
    assert behind.bodies == []


def test_a_token_that_is_nobodys_is_logged_and_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    behind = Behind()
    desk = Desk(behind)
    headers = [LOCAL, (b"x-fedai-control", b"guessed-4711")]
    for _ in range(50):
        assert ask(loopback(behind, desk), scope("/v1/control/stop-run", headers=headers), [b"x"]) == 403
    assert desk.told == behind.bodies == []
    assert "/v1/control/stop-run" in caplog.text
    assert "guessed-4711" not in caplog.text


def test_the_recorder_keeps_head_and_body_also_of_what_is_refused(tmp_path: Path) -> None:
    behind = Behind()
    recorder = Recorder(public(behind), tmp_path, maximum_bytes=100)
    assert ask(recorder, scope(), [b"\x00binary", b"\xff\n"]) == 200
    assert ask(recorder, scope("/elsewhere"), [b"refused body"]) == 404
    assert ask(recorder, scope(), [b"y" * 80, b"z" * 30]) == 413
    assert behind.bodies == [b"\x00binary\xff\n"]
    (file,) = tmp_path.iterdir()
    recorded = file.read_bytes()
    assert b"\n\x00binary\xff\n\n" in recorded
    assert b"refused body" in recorded
    assert b"y" * 80 + b"z" * 30 in recorded
    head = json.loads(recorded.partition(b"\n")[0])
    assert head["target"] == PATH
    assert head["headers"] == [["host", "fed.example.org:8443"]]
    assert head["bytes"] == 9
