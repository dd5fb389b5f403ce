from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fedai_site import fleet
from fedai_site.fleet import Envelope, Fleet, NotAdmitted, Parcel, Unreachable, WrongServer, pack
from federation_processes import make_home as make_server_home
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.supernode.fleet_http_client import FleetHttpClient
from homes import make_home
from replies_to import message_of, task_of

from fedai.errors import RefusedByPolicy
from fedai.flower import read_task, task_record

Serve = Callable[[httpx.Request], httpx.Response]


def fleet_at(serve: Serve) -> Fleet:
    """An open connection to a server that answers so."""
    client = FleetHttpClient("https://fl.example.org:1")
    client._client = httpx.Client(transport=httpx.MockTransport(serve))
    return Fleet(client, 7)


def says(content: bytes, **headers: str) -> Serve:
    return lambda request: httpx.Response(200, stream=httpx.ByteStream(content), headers=headers)


def a_task() -> Parcel:
    return pack(task_record(task_of("train")), message_of(task_of("ready")))


GARBLED = [
    says(b"<html>not Flower"),
    says(b"\xff" * 40),
    says(b"not gzip", **{"content-encoding": "gzip"}),
]


@pytest.mark.parametrize("serve", GARBLED)
def test_an_answer_that_is_not_protobuf_means_that_the_server_is_away(serve: Serve) -> None:
    line = fleet_at(serve)
    parcel = a_task()
    calls: list[Callable[[], object]] = [
        line.receive,
        lambda: line.facts_of(3),
        lambda: line.fetch(Envelope(parcel.message, parcel.tree), 10**9),
        lambda: line.send(parcel, 1.0),
    ]
    for call in calls:
        with pytest.raises(Unreachable):
            call()
    assert line.beat() is False


def test_a_task_without_its_tree_means_that_the_server_is_away() -> None:
    response = PullMessagesResponse()
    response.messages_list.add()
    with pytest.raises(Unreachable, match="can't be read"):
        fleet_at(says(response.SerializeToString())).receive()


@pytest.mark.parametrize("serve", GARBLED)
def test_connecting_to_what_is_no_flower_server_can_be_tried_again(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path, patients=1)
    client = fleet_at(serve)._client
    monkeypatch.setattr(fleet.FleetHttpClient, "from_server_address", lambda *_: client)
    with (
        pytest.raises(Unreachable),
        fleet.connect("h:1", home.settings.server.ca, home.private_key, leave_first=5),
    ):
        raise AssertionError("connected")


def test_a_key_that_is_in_use_elsewhere_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by the agent of the home that this one's backup was made of."""
    home = make_home(tmp_path, patients=1)
    refusal = {"code": 2004, "detail": "Failed to activate SuperNode."}
    client = fleet_at(lambda request: httpx.Response(412, json=refusal, request=request))._client
    monkeypatch.setattr(fleet.FleetHttpClient, "from_server_address", lambda *_: client)
    with (
        pytest.raises(NotAdmitted, match="another agent is at the server with this site's key") as told,
        fleet.connect("h:1", home.settings.server.ca, home.private_key),
    ):
        raise AssertionError("connected")
    assert "end the agent of the other home" in told.value.hint
    assert "admitted" not in str(told.value)


def serving(objects: dict[str, bytes]) -> Serve:
    def serve(request: httpx.Request) -> httpx.Response:
        wanted = PullObjectRequest.FromString(request.content)
        found = PullObjectResponse(
            object_found=True, object_available=True, object_content=objects.get(wanted.object_id, b"")
        )
        return httpx.Response(200, content=found.SerializeToString())

    return serve


def test_a_task_is_fetched_as_it_was_sent() -> None:
    parcel = a_task()
    got = fleet_at(serving(parcel.objects)).fetch(Envelope(parcel.message, parcel.tree), 10**6)
    assert read_task(got.content).key == "train-1-"


def bomb(objects: dict[str, bytes], times: int) -> dict[str, bytes]:
    """The same objects, but each array says that it is its first chunk, so many times."""
    out = {}
    for key, content in objects.items():
        head, _, body = content.partition(b"\0")
        if head.startswith(b"Array "):
            kind, children, _ = head.decode().split(" ")
            body = json.dumps({**json.loads(body), "arraychunk_ids": [0] * times}).encode()
            content = f"{kind} {children} {len(body)}".encode() + b"\0" + body
        out[key] = content
    return out


def test_a_task_that_grows_when_it_is_opened_is_refused_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    parcel = a_task()
    monkeypatch.setattr(fleet, "inflate_object_from_contents", lambda *_: pytest.fail("it was opened"))
    objects = bomb(parcel.objects, 10_000)
    with pytest.raises(RefusedByPolicy, match="once opened"):
        fleet_at(serving(objects)).fetch(Envelope(parcel.message, parcel.tree), 10**7)


def test_a_task_larger_than_the_study_allows_is_not_fetched_to_its_end() -> None:
    parcel = a_task()
    with pytest.raises(RefusedByPolicy, match="larger than 1,000 bytes"):
        fleet_at(serving(parcel.objects)).fetch(Envelope(parcel.message, parcel.tree), 1000)


@pytest.mark.parametrize(
    "content", [b"", b"Message", b"Message  0\0", b"ArrayRecord  2\0[]", b"Nothing  0\0"]
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    parcel = a_task()
    objects = {**parcel.objects, parcel.tree.object_id: content}
    with pytest.raises(RefusedByPolicy):
        fleet_at(serving(objects)).fetch(Envelope(parcel.message, parcel.tree), 10**7)


@contextmanager
def answering(how: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of something that takes a client's first bytes and then does `how`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            near, _ = listener.accept()
            with near:
                near.recv(1 << 14)
                how(near)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def hang_up(near: socket.socket) -> None:
    near.shutdown(socket.SHUT_RDWR)


def reset(near: socket.socket) -> None:
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("how", [hang_up, reset])
def test_a_line_that_breaks_in_the_handshake_can_be_tried_again(
    how: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    """An agent that took this for another server would end, and stay away until somebody starts it."""
    authority = make_server_home(tmp_path / "server").authority
    with answering(how) as address, pytest.raises(Unreachable):
        fleet.probe(address, authority)


def test_what_speaks_no_tls_is_another_server(tmp_path: Path) -> None:
    authority = make_server_home(tmp_path / "server").authority
    plain = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    with (
        answering(lambda near: near.sendall(plain)) as address,
        pytest.raises(WrongServer, match="speak TLS"),
    ):
        fleet.probe(address, authority)
