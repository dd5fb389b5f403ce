from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fedai_server.middlewares import ABOUT, CONTROL, FLEET, Within, narrow
from fedai_server.superlink import make_application
from federation_processes import make_home
from flwr.superlink import main as flowers
from starlette.applications import Starlette
from starlette.middleware import Middleware

OTHERS = ("/v1/runtime/get-nodes", "/v1/other/x", "/", CONTROL.rstrip("/"), "/x" + FLEET, "/v2/control/x")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"x-inner", scope["path"].encode())]
    await send({"type": "http.response.start", "status": 207, "headers": headers})
    await send({"type": "http.response.body", "body": b"as it was"})


def ask(app: Any, path: str) -> list[dict[str, Any]]:
    """What is sent for a call without any state, account or signature."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message.get("body") != b"" or message["type"] == "http.response.start":
            sent.append({key: value for key, value in message.items() if key != "more_body"})

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [], "scheme": "http", "server": ("h", 1), "root_path": "", "http_version": "1.1",
        "app": Starlette(),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.parametrize("name", ABOUT)
def test_flowers_middleware_hands_other_calls_on_as_they_came(name: str) -> None:
    """So it may be passed by there. A red test means: Flower moved."""
    kind = next(one.cls for one in flowers._get_middleware() if getattr(one.cls, "__name__", "") == name)
    other = CONTROL if ABOUT[name] == FLEET else FLEET
    for path in (*OTHERS, other + "x"):
        assert ask(kind(inner), path) == ask(inner, path)


def test_the_superlinks_middlewares_are_narrowed_and_keep_their_order(tmp_path: Path) -> None:
    found = make_application(make_home(tmp_path / "home")).user_middleware
    names = [getattr(one.kwargs.get("kind", one.cls), "__name__", "") for one in found]
    assert names == [getattr(one.cls, "__name__", "") for one in flowers._get_middleware()]
    assert {one.kwargs["kind"].__name__: one.kwargs["prefix"] for one in found if one.cls is Within} == ABOUT


@pytest.mark.parametrize(("path", "marked"), [(FLEET + "x", True), (FLEET, True), ("/v1/fleetx", False)])
def test_a_middleware_is_asked_for_its_own_calls(path: str, marked: bool) -> None:
    class NodeAuthMiddleware:
        def __init__(self, app: Any, mark: bytes) -> None:
            self.app, self.mark = app, mark

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "mark", "mark": self.mark})
            await self.app(scope, receive, send)

    application = Starlette(middleware=[Middleware(NodeAuthMiddleware, mark=b"7")])
    narrow(application)
    (one,) = application.user_middleware
    sent = ask(one.cls(inner, *one.args, **one.kwargs), path)
    assert ({"type": "mark", "mark": b"7"} in sent) is marked
    assert sent[-2:] == ask(inner, path)
