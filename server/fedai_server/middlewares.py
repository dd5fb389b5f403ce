"""Flower's middlewares, each asked only for the calls that it is about.

Every call runs through nine, and most do nothing for most of them; but Starlette opens a task group and a
stream for each, together about half of what the SuperLink computes for a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL, FLEET = "/v1/control/", "/v1/fleet/"
ABOUT = {
    "ControlSensitiveResponseMiddleware": CONTROL,
    "ControlAuthenticationMiddleware": CONTROL,
    "ControlLicenseMiddleware": CONTROL,
    "ControlEventLogMiddleware": CONTROL,
    "NodeAuthMiddleware": FLEET,
    "FleetEventLogMiddleware": FLEET,
}
"""Class -> how the paths of its calls begin; for others each hands on what it got, see the contract test."""


class Within:
    """A middleware of the calls whose path begins with `prefix`; others go past it."""

    def __init__(self, app: ASGIApp, /, *, kind: Callable[..., ASGIApp], prefix: str, **options: Any):
        self.past, self.through, self.prefix = app, kind(app, **options), prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_about = scope["type"] != "http" or scope["path"].startswith(self.prefix)
        await (self.through if is_about else self.past)(scope, receive, send)


def narrow(application: Starlette) -> None:
    """Put `Within` around those of the application's middlewares that are about some calls alone.

    To be called before the first call comes.
    """
    application.user_middleware = [_narrowed(one) for one in application.user_middleware]


def _narrowed(one: Middleware) -> Middleware:
    prefix = ABOUT.get(getattr(one.cls, "__name__", ""))
    return one if prefix is None else Middleware(Within, *one.args, kind=one.cls, prefix=prefix, **one.kwargs)
