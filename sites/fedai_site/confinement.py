"""The agent's process reaches the server, or the proxy before it, and nothing else.

An audit hook (PEP 578) hears each connection and each name that Python code asks for, whatever library asks,
and refuses all others. No Python code can remove it. It isn't told of a socket that listens without having
been given an address, so `socket.socket` can't listen at all; the class below it still could. It doesn't hear
what C code does by itself, nor programs that the process starts: see sites/deploy/ for what the operating
system can hold.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpx

from fedai.errors import RefusedByPolicy

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
NAMED = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
SENT = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
Place = tuple[str, int]

log = logging.getLogger("fedai.site.confinement")
confined_to: list[str] = []
"""What this process may reach, in words; empty before `confine`. For `status.json` alone."""


class Elsewhere(RefusedByPolicy, PermissionError):
    """Something else was asked for. To libraries it is what a closed network says."""


def destinations(address: str) -> frozenset[Place]:
    """The server, HOST:PORT, and the proxies that the environment names."""
    named = [url for name in PROXIES if (url := os.environ.get(name))]
    texts = [f"https://{address}", *(url if "://" in url else f"http://{url}" for url in named)]
    ports = {"https": 443, "http": 80}
    urls = [httpx.URL(text) for text in texts]
    return frozenset((url.raw_host.decode("ascii"), url.port or ports.get(url.scheme, 0)) for url in urls)


def confine(places: Iterable[Place]) -> None:
    """From now on this process reaches these places and no others, and listens nowhere: else Elsewhere."""
    ours = frozenset(places)
    known: set[Place] = set(ours)
    confined_to.extend(f"{host}:{port}" for host, port in sorted(ours))

    def is_ours(place: Any) -> bool:
        """Whether an address is one of those that our names have now or had before."""
        if place not in known:
            for host, port in ours:
                with suppress(OSError):
                    known.update((str(one[4][0]), port) for one in socket.getaddrinfo(host, port))
        return place in known

    def hear(event: str, told: tuple[Any, ...]) -> None:
        if event in NAMED:
            name = told[0].decode("ascii", "replace") if isinstance(told[0], bytes) else str(told[0])
            if name.lower() not in {host for host, _ in ours}:
                _refuse(event, name)
        elif event in SENT and told[1] is not None:
            place = told[1][:2] if isinstance(told[1], tuple) else told[1]
            if event == "socket.bind" or not is_ours(place):
                _refuse(event, place)

    sys.addaudithook(hear)
    socket.socket.listen = _listen  # type: ignore[method-assign, assignment]


def _listen(of: socket.socket, backlog: int = 0) -> None:
    _refuse("socket.listen", "any address")


def _refuse(event: str, place: object) -> None:
    log.error("%s was refused: %s", event, place)
    raise Elsewhere(f"{event}: only the server may be reached, not {place}", reason="CONNECTION")
