"""What a stranger can take from a real server: nothing of its memory, and no site's place.

This server doesn't record: a recorder reads every body before anybody looks at its head.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fedai_server import pki
from fedai_server.connections import MOST_OF_AN_ADDRESS, STRANGER_S
from fedai_server.control import Control
from fedai_server.listener import HEAD_S
from federation_processes import RunningServer, make_home, make_site_key, start_server, wait_for
from flwr.proto.fleet_pb2 import PushMessagesRequest
from test_superlink import PUSH, as_lines, fleet_client, signed_head

pytestmark = pytest.mark.federation
SIZE = 15_900_000
HALF_SENT = PUSH + b"Content-Type: application/protobuf\r\nContent-Length: %d\r\n\r\n" % SIZE
MESSAGES = PushMessagesRequest.DESCRIPTOR.fields_by_name["messages_list"].number
EMPTY_MESSAGES = bytes([MESSAGES << 3 | 2, 0]) * (SIZE // 2)  # eight million of them


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(make_home(tmp_path_factory.mktemp("quiet") / "home")) as running:
        yield running


@pytest.fixture(scope="module")
def site_key(quiet: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    private, public = make_site_key(tmp_path_factory.mktemp("key"), "north")
    with Control(quiet.home) as control:
        control.register_site("north", pki.read_public_key(public.read_bytes()))
    return private


def dial(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.home.settings.public_port), 10)


def dial_tls(server: RunningServer) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(server.home.authority))
    return trust.wrap_socket(dial(server), server_hostname="127.0.0.1")


def peak_mb(server: RunningServer) -> int:
    status = Path(f"/proc/{server.pid('superlink')}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def has_ended(connection: socket.socket) -> bool:
    """Has the server closed it? What it still has to say is read and dropped."""
    connection.settimeout(0.02)
    try:
        while connection.recv(65536):
            pass
    except (TimeoutError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


def send_anyhow(connection: socket.socket, data: bytes) -> None:
    """Send as much as the server takes."""
    connection.settimeout(1)
    with contextlib.suppress(OSError):
        connection.sendall(data)


def hear(connection: socket.socket) -> bytes:
    """One answer of Flower's, to the end of its JSON."""
    heard = b""
    while not heard.endswith(b"}"):
        piece = connection.recv(4096)
        assert piece, heard
        heard += piece
    return heard


def activate(server: RunningServer, site_key: Path) -> float:
    """Let a site in and out again; the seconds it took."""
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest

    site, begun = fleet_client(server.home, site_key), time.monotonic()
    with site.calls as calls:
        node_id = calls.ActivateNode(
            ActivateNodeRequest(public_key=site.public_key, heartbeat_interval=30)
        ).node_id
        calls.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    return time.monotonic() - begun


def test_a_strangers_body_takes_no_memory(quiet: RunningServer) -> None:
    """Flower alone would parse it first: eight million messages in the memory of gigabytes."""
    before = peak_mb(quiet)
    head = HALF_SENT.replace(b"push-object", b"push-messages")
    for _ in range(3):
        with dial_tls(quiet) as connection:
            connection.settimeout(20)
            connection.sendall(head)
            assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")  # with nothing of the body sent yet
            send_anyhow(connection, EMPTY_MESSAGES)
    assert peak_mb(quiet) - before < 60


def test_sites_get_through_while_a_stranger_holds_connections(quiet: RunningServer, site_key: Path) -> None:
    before = peak_mb(quiet)
    activate(quiet, site_key)
    with contextlib.ExitStack() as stack:
        held: list[socket.socket] = []
        for number in range(300):
            with contextlib.suppress(OSError):
                held.append(stack.enter_context(dial(quiet) if number % 3 else dial_tls(quiet)))
        for number in range(20):
            with contextlib.suppress(OSError):
                connection = stack.enter_context(dial_tls(quiet))
                send_anyhow(connection, HALF_SENT[:-4] if number % 2 else HALF_SENT + bytes(1_000_000))
                held.append(connection)
        assert activate(quiet, site_key) < 10
        assert sum(not has_ended(connection) for connection in held) <= MOST_OF_AN_ADDRESS
        wait_for(
            lambda: all(has_ended(connection) for connection in held), STRANGER_S + 10, "every stranger's end"
        )
    assert peak_mb(quiet) - before < 60


def test_a_sites_half_sent_head_or_body_is_given_up(quiet: RunningServer, site_key: Path) -> None:
    signed = as_lines(signed_head(site_key))
    call = PUSH.replace(b"push-object", b"pull-messages") + signed
    with dial_tls(quiet) as body, dial_tls(quiet) as head:
        body.sendall(PUSH + signed + b"Content-Length: 1000\r\n\r\nhalf")
        head.sendall(call + b"Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n")
        assert hear(head).startswith(b"HTTP/1.1 415 ")  # known now, and the connection is kept
        head.sendall(call[:-2])
        begun = time.monotonic()
        wait_for(lambda: has_ended(head), HEAD_S + 5, "the end of half a head")
        body.settimeout(10)
        assert body.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun > 5


def test_a_site_keeps_its_connection(quiet: RunningServer, site_key: Path) -> None:
    call = PUSH.replace(b"push-object", b"pull-messages") + as_lines(signed_head(site_key))
    call += b"Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    with dial_tls(quiet) as connection:
        connection.settimeout(10)
        for pause in (0, STRANGER_S + 2, 0):
            time.sleep(pause)
            connection.sendall(call)
            assert hear(connection).startswith(b"HTTP/1.1 415 ")


def test_a_handshake_that_never_comes_is_given_up(quiet: RunningServer) -> None:
    with dial(quiet) as silent:
        wait_for(lambda: has_ended(silent), STRANGER_S + 5, "the end of a silent connection")
