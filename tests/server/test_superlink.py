"""The two listeners of a real SuperLink, asked over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fedai_server import pki
from fedai_server.connections import Connections
from fedai_server.control import Control
from fedai_server.gate import PUBLIC_PATHS, TOKEN_HEADER
from fedai_server.home import ServerHome
from fedai_server.superlink import MUST_BE_UNSET, _public_configuration, flower_environment, make_application
from federation_processes import RunningServer, make_home, make_site_key

pytestmark = pytest.mark.federation
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def trust(home: ServerHome) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(home.authority))


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """(method, path) of everything that Flower's application serves, asked of the application itself."""
    from fastapi.routing import iter_route_contexts

    application = make_application(make_home(tmp_path_factory.mktemp("routes") / "home"))
    contexts = [context.route for context in iter_route_contexts(application.routes)]
    return sorted({(method, route.path) for route in contexts for method in route.methods})


@pytest.fixture
def outside(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"https://{server.home.address}", verify=trust(server.home), trust_env=False
    ) as client:
        yield client


@pytest.fixture
def inside(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {TOKEN_HEADER: server.home.control_token.read_text()}
    base = f"http://{server.home.loopback_address}"
    with httpx.Client(base_url=base, headers=headers, trust_env=False) as client:
        yield client


def ask_raw(home: ServerHome, request: bytes) -> list[int]:
    """Send bytes as they are over TLS; the status of every answer until the server closes."""
    plain = socket.create_connection(("127.0.0.1", home.settings.public_port), 5)
    answer = b""
    with trust(home).wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        secure.sendall(request)
        secure.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while piece := secure.recv(65536):
                answer += piece
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_the_application_serves_control_runtime_and_documentation(routes: list[tuple[str, str]]) -> None:
    paths = {path for _, path in routes}
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/health"} <= paths
    assert paths >= PUBLIC_PATHS
    assert len(paths) > 60


def test_from_outside_every_path_but_the_ten_is_not_there(
    routes: list[tuple[str, str]], outside: httpx.Client
) -> None:
    paths = {path for _, path in routes} - PUBLIC_PATHS
    found = [(m, p) for p in sorted(paths) for m in METHODS if outside.request(m, p).status_code != 404]
    assert found == []


def test_from_outside_each_of_the_ten_answers_to_post_alone_and_asks_for_a_signature(
    outside: httpx.Client,
) -> None:
    from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

    headers = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    for path in sorted(PUBLIC_PATHS):
        assert outside.post(path, headers=headers).status_code == 401, path
        others = {outside.request(method, path).status_code for method in METHODS if method != "POST"}
        assert others == {404}, path


def test_from_inside_every_path_is_there(routes: list[tuple[str, str]], inside: httpx.Client) -> None:
    gone = [(m, p) for m, p in routes if inside.request(m, p).status_code in (403, 404)]
    assert gone == []


def test_from_inside_without_the_token_control_is_shut(
    routes: list[tuple[str, str]], inside: httpx.Client
) -> None:
    del inside.headers[TOKEN_HEADER]
    shut = {path for method, path in routes if inside.request(method, path).status_code == 403}
    assert {path for _, path in routes if not path.startswith("/v1/runtime/")} - {"/health"} == shut


@pytest.mark.parametrize(
    "target",
    [
        "/v1/fleet/pull-messages/",
        "//v1/fleet/pull-messages",
        "/v1/fleet//pull-messages",
        "/V1/fleet/pull-messages",
        "/v1/fleet/Pull-Messages",
        "/v1/fleet/%70ull-messages",
        "/v1/fleet/pull%2Dmessages",
        "/v1%2Ffleet/pull-messages",
        "/v1/fleet/../fleet/pull-messages",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/v1/fleet/./pull-messages",
        "/v1/fleet/pull-messages?x",
        "/v1/fleet/pull-messages?",
        "/v1/fleet/pull-messages;x",
        "/v1/fleet/pull-messages%00",
        "/v1/fleet/pull-messages%20",
        "/v1\\fleet\\pull-messages",
        "http://127.0.0.1/v1/control/list-runs",
        "http://127.0.0.1/v1/fleet/pull-messages",
        "*",
        "/",
        "/v1",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/control/list-runs",
        "/v1/control/list-runs/",
        "/%76%31/control/list-runs",
        "/docs",
        "/docs/",
        "/redoc",
        "/openapi.json",
        "/health",
        "/metrics",
        "/static/../docs",
    ],
)
def test_from_outside_odd_spellings_are_not_there(server: RunningServer, target: str) -> None:
    request = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
    answers = ask_raw(server.home, request)
    if target.endswith("?"):  # an empty query is no query: the same call
        assert answers in ([404], [400], [401], [415])
    else:
        assert answers in ([404], [400]), answers


SMUGGLED = b"POST /v1/control/list-runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
CALL = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\n"
PUSH = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\n"


def signed_head(private_key: Path) -> dict[str, str]:
    """The headers by which a site shows its key, made by Flower's own client."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key: Any = load_ssh_private_key(private_key.read_bytes(), None)
    request = httpx.Request("POST", "https://localhost/")
    context: Any = SimpleNamespace(request=request)
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda _: httpx.Response(200))
    return {name: value for name, value in request.headers.items() if name.startswith("flwr-")}


def as_lines(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        CALL
        + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(SMUGGLED))
        + SMUGGLED,
        CALL + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        CALL + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        CALL + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        CALL + b"Content-Length: 0\r\n\r\n" + SMUGGLED,
        b"POST /docs HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: a/v1/control/x?\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
        CALL + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n",
        b"GET /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_from_outside_nothing_is_smuggled(server: RunningServer, request_bytes: bytes) -> None:
    assert set(ask_raw(server.home, request_bytes)) <= {400, 401, 404, 415}


def test_a_path_that_carries_another_calls_headers_gets_no_further(
    outside: httpx.Client, server: RunningServer
) -> None:
    stolen = {TOKEN_HEADER: server.home.control_token.read_text(), "x-forwarded-for": "127.0.0.1",
              "x-original-url": "/v1/control/list-runs", "x-rewrite-url": "/v1/control/list-runs",
              "x-forwarded-prefix": "/v1/control"}  # fmt: skip
    assert outside.post("/v1/control/list-runs", headers=stolen).status_code == 404
    assert outside.post("/v1/fleet/list-runs", headers=stolen).status_code == 404


def test_a_request_that_is_too_large_is_refused(
    outside: httpx.Client, server: RunningServer, tmp_path: Path
) -> None:
    private, public = make_site_key(tmp_path, "large")
    with Control(server.home) as control:
        control.register_site("large", pki.read_public_key(public.read_bytes()))
    signed = signed_head(private)
    size = server.home.settings.max_request_mb * 1_000_000 + 1
    announced = PUSH + b"Content-Length: %d\r\n" % size
    assert ask_raw(server.home, announced + b"\r\n") == [401]
    assert ask_raw(server.home, announced + as_lines(signed) + b"\r\n") == [413]
    assert outside.post("/v1/fleet/push-messages", headers=signed, content=bytes(200_001)).status_code == 413
    pieces = (b"x" * 1_000_000 for _ in range(server.home.settings.max_request_mb + 1))
    try:
        status = outside.post("/v1/fleet/push-object", headers=signed, content=pieces).status_code
    except (httpx.WriteError, httpx.ReadError):
        status = 413  # the server closed while we were still sending
    assert status == 413


def test_plain_text_is_not_answered(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.home.settings.public_port), 5) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(5)
        try:
            answer = plain.recv(1024)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer


def test_tls_before_1_2_is_refused(server: RunningServer) -> None:
    context = trust(server.home)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", server.home.settings.public_port), 5) as plain,
        pytest.raises(OSError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_the_public_listener_asks_for_tls_1_2(server: RunningServer) -> None:
    application = make_application(server.home)
    connections = Connections(8, asyncio.get_running_loop)
    configuration = _public_configuration(server.home, application, connections, None)
    assert configuration.ssl is not None
    assert configuration.ssl.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_site_that_trusts_another_authority_turns_away(server: RunningServer, tmp_path: Path) -> None:
    pki.make_authority(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with (
        httpx.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx.ConnectError, match="verify"),
    ):
        client.get(f"https://{server.home.address}/")


def fleet_client(home: ServerHome, private_key: Path) -> SimpleNamespace:
    """Flower's own Fleet client with a site's key, as an agent would have it."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(private_key.read_bytes(), None)
    signed = NodeAuthHttpInterceptor(key, key.public_key())  # type: ignore[arg-type]
    calls = FleetHttpClient.from_server_address(
        home.address, False, home.authority.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), signed],
    )  # fmt: skip
    return SimpleNamespace(calls=calls, public_key=public_key_to_bytes(key.public_key()))  # type: ignore[arg-type]


def test_an_admitted_key_is_let_in_and_an_unadmitted_one_is_not(
    server: RunningServer, tmp_path: Path
) -> None:
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest
    from flwr.supercore.error import ApiErrorCode, FlowerError

    private, public = make_site_key(tmp_path, "west")
    site = fleet_client(server.home, private)
    activation = ActivateNodeRequest(public_key=site.public_key, heartbeat_interval=30)
    with site.calls as calls:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            calls.ActivateNode(activation)
        assert refused.value.response.status_code == 401
        with pytest.raises(httpx.HTTPStatusError) as hidden:
            calls.RegisterNode(RegisterNodeFleetRequest(public_key=site.public_key))
        assert hidden.value.response.status_code == 404
        with Control(server.home) as control:
            node_id = control.register_site("west", pki.read_public_key(public.read_bytes()))
        assert calls.ActivateNode(activation).node_id == node_id
        with pytest.raises(httpx.HTTPStatusError) as twice:
            calls.ActivateNode(activation)
        told = FlowerError.from_json(twice.value.response.text)
        assert told is not None
        assert told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, "as a site's agent reads it"
    with Control(server.home) as control:
        assert [site.status for site in control.list_sites() if site.name == "west"] == ["online"]


def test_a_site_cannot_speak_for_another(server: RunningServer, tmp_path: Path) -> None:
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.node_pb2 import Node

    keys = {name: make_site_key(tmp_path, name) for name in ("a-site", "b-site")}
    with Control(server.home) as control:
        nodes = {
            name: control.register_site(name, pki.read_public_key(public.read_bytes()))
            for name, (_, public) in keys.items()
        }
    request = PullMessagesRequest(node=Node(node_id=nodes["b-site"]))
    with (
        fleet_client(server.home, keys["a-site"][0]).calls as calls,
        pytest.raises(httpx.HTTPStatusError) as refused,
    ):
        calls.PullMessages(request)
    assert refused.value.response.status_code == 401


def test_a_retired_site_is_shut_out_at_once(server: RunningServer, tmp_path: Path) -> None:
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
    from flwr.proto.node_pb2 import Node

    private, public = make_site_key(tmp_path, "leaver")
    site = fleet_client(server.home, private)
    with Control(server.home) as control, site.calls as calls:
        node_id = control.register_site("leaver", pki.read_public_key(public.read_bytes()))
        calls.ActivateNode(ActivateNodeRequest(public_key=site.public_key, heartbeat_interval=30))
        assert not calls.PullMessages(PullMessagesRequest(node=Node(node_id=node_id))).messages_list
        control.unregister_site("leaver")
        with pytest.raises(httpx.HTTPStatusError) as refused:
            calls.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)))
    assert refused.value.response.status_code == 401


def test_what_sites_send_is_recorded_refused_or_not(server: RunningServer, outside: httpx.Client) -> None:
    outside.post("/nowhere", content=b"Planted Name 4711")
    outside.post("/v1/fleet/push-object", content=b"\x00planted bytes\xff")
    folder = server.home.folder.parent / "record"
    recorded = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"Planted Name 4711" in recorded
    assert b"\x00planted bytes\xff" in recorded


def test_flowers_processes_inherit_no_way_home(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MUST_BE_UNSET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example.org")
    environment = flower_environment(server.home)
    assert not set(MUST_BE_UNSET) & set(environment)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet.example.org,127.0.0.1,localhost"
    assert environment["FLWR_HOME"] == str(server.home.folder / "flwr")
