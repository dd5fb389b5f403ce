"""The agent's one connection: Flower's Fleet calls over TLS, signed with the site's own key.

The only module of a site that touches Flower's internals or opens a socket. It never asks for a run's bundle.
Every lost connection ends in Unreachable; the agent connects anew, and the server sends open tasks again.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedai.errors import ConfigError, FederationError, RefusedByPolicy
from fedai.fingerprints import one_certificate
from fedai.flower import check_opened_size

HEARTBEAT_PAUSE_S = HEARTBEAT_DEFAULT_INTERVAL / 3
FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 1.0  # for what the server is still receiving; Flower: 1 and 10
RUN_OVER = (ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED)
LOST = (httpx.RequestError, ObjectPullError, ObjectPushError)
NO_TLS = ("WRONG_VERSION", "record layer", "UNSUPPORTED_PROTOCOL", "UNKNOWN_PROTOCOL", "PROTOCOL_VERSION")
"""In what OpenSSL says of another protocol; a line that breaks in a handshake says "SSL" and EOF."""
GARBLED = (ValueError, LookupError, TypeError, DecodeError)  # an answer that isn't Flower's


class Unreachable(FederationError):
    """The server can't be reached now; trying again later makes sense."""


class NotAdmitted(FederationError):
    """The server answers, but doesn't accept this site's key (yet), or its clock."""


class WrongServer(FederationError):
    """What answers there is not the consortium's server: another certificate authority, or no TLS."""


class RunEnded(FederationError):
    """The run that a message belongs to is over; nothing is left to do for it."""


@dataclass(frozen=True)
class RunFacts:
    """What the server says of a run before anything of it is fetched."""

    run_id: int
    bundle_sha256: str
    study: str


@dataclass(frozen=True)
class Envelope:
    """The head of a task: who and what, no content. `tree` names the content's objects."""

    head: Message
    tree: Any

    @property
    def run_id(self) -> int:
        return int(self.head.metadata.run_id)


@dataclass
class Parcel:
    """A message ready to be sent: its objects as bytes. `size` in bytes."""

    message: Message
    tree: Any
    objects: dict[str, bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.objects.values()))


class Fleet:
    """An open connection; see `connect`."""

    def __init__(self, client: FleetHttpClient, node_id: int) -> None:
        self._client = client
        self.node_id = node_id
        self._node = Node(node_id=node_id)

    def receive(self) -> Envelope | None:
        """The next task's head, or None."""
        with _told():
            response = self._client.PullMessages(PullMessagesRequest(node=self._node))
            if not response.messages_list:
                return None
            return Envelope(message_from_proto(response.messages_list[0]), response.message_object_trees[0])

    def facts_of(self, run_id: int) -> RunFacts:
        """The run's bundle hash and study text; the bundle itself is never asked for."""
        with _told():
            response = self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id))
            run = run_from_proto(response.run)
            return RunFacts(run_id, run.fab_hash, str(run.override_config.get("study", "")))

    def fetch(self, envelope: Envelope, limit: int) -> Message:
        """The task with its content. Raises RefusedByPolicy above `limit` bytes or no message."""
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, envelope.run_id)
        confirm = make_confirm_message_received_fn_protobuf(
            self._client.ConfirmMessageReceived, self._node, envelope.run_id
        )
        with _told():
            objects = pull_objects(
                [tree.object_id for tree in iterate_object_tree(envelope.tree)],
                _counting(pull, limit),
                initial_backoff=FIRST_RETRY_S,
                backoff_cap=LONGEST_RETRY_S,
            )
            confirm(envelope.tree.object_id)
        check_opened_size(objects, limit)
        message = _inflated(envelope.tree.object_id, objects)
        message.metadata.__dict__["_message_id"] = envelope.tree.object_id
        return message

    def send(self, parcel: Parcel, seconds: float) -> None:
        """Send a packed message; `seconds` is the time that the site worked on it."""
        run_id = parcel.message.metadata.run_id
        head = parcel.message
        if head.has_content():
            head = remove_content_from_message(head)
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(head)],
            message_object_trees=[parcel.tree],
            clientapp_runtime_list=[seconds],
        )
        with _told():
            response = self._client.PushMessages(request)
            push = make_push_object_fn_protobuf(
                self._client.PushObject, self._node, run_id, response.session_id
            )
            wanted = [item for item in parcel.objects.items() if item[0] in set(response.objects_to_push)]
            push_object_contents_from_iterable(iter(wanted), push)

    def beat(self) -> bool:
        """One heartbeat; False where it didn't get through."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(self._client.SendNodeHeartbeat(request).success)
        except (httpx.HTTPError, *GARBLED):
            return False


def _counting(pull: Callable[[str], bytes], limit: int) -> Callable[[str], bytes]:
    """`pull`, until more than `limit` bytes have come."""
    sizes: list[int] = []

    def pull_counted(object_id: str) -> bytes:
        content = pull(object_id)
        sizes.append(len(content))
        if sum(sizes) > limit:
            raise RefusedByPolicy(f"the task is larger than {limit:,} bytes")
        return content

    return pull_counted


def _inflated(object_id: str, objects: dict[str, bytes]) -> Message:
    try:
        message = inflate_object_from_contents(object_id, objects)
    except (*GARBLED, AttributeError, RecursionError):
        raise RefusedByPolicy("the message can't be opened") from None
    if not isinstance(message, Message):
        raise RefusedByPolicy("what was sent is no message")
    return message


def pack(content: RecordDict | Error, task: Message) -> Parcel:
    """Turn an answer to `task` into objects as they will lie on the wire."""
    message = Message(content, reply_to=task)
    message.metadata.__dict__["_message_id"] = message.object_id
    with no_object_id_recompute():
        objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
        return Parcel(message, get_object_tree(message), objects)


@contextmanager
def connect(address: str, ca: Path, key_file: Path, *, leave_first: int | None = None) -> Iterator[Fleet]:
    """Open the connection, keep its heartbeat, and leave cleanly at the end.

    `leave_first`: the node id of an earlier connection of this key that may have ended without saying so;
    it is ended now, since the server refuses a key that still counts as present. Raises Unreachable,
    NotAdmitted, WrongServer.
    """
    private, public = _keys(key_file)
    interceptors = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(private, public),
    ]
    with FleetHttpClient.from_server_address(address, False, _authority(ca), interceptors) as client:
        client._client.follow_redirects = False  # a server must not be able to send the agent elsewhere
        if leave_first is not None:
            _leave(client, leave_first)
        with _told():
            response = client.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(public), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
                )
            )
        fleet = Fleet(client, response.node_id)
        with _heartbeat(fleet):
            try:
                yield fleet
            finally:
                _leave(client, response.node_id)


def _leave(client: FleetHttpClient, node_id: int) -> None:
    with contextlib.suppress(
        httpx.HTTPError, *GARBLED
    ):  # leaving is a courtesy: without it the server notices a minute later
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))


@contextmanager
def _heartbeat(fleet: Fleet) -> Iterator[None]:
    stopped = threading.Event()

    def keep_beating() -> None:
        while not stopped.wait(HEARTBEAT_PAUSE_S):
            fleet.beat()

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=2)


def _keys(key_file: Path) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FederationError("the agent's key is not an elliptic-curve key", hint="make a new home")
    return key, key.public_key()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what httpx and Flower raise into errors of ours that say what to do next."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _refusal(error.response) from None
    except LOST as error:
        raise _loss(error) from None
    except GARBLED as error:
        raise Unreachable(
            f"the server's answer can't be read ({type(error).__name__})",
            hint="is server.address the consortium's server, of the same release?",
        ) from None


def _refusal(response: httpx.Response) -> FederationError:
    told = FlowerError.from_json(response.text)
    if told is not None and told.code in RUN_OVER:
        return RunEnded("the run is over")
    if told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return NotAdmitted(
            "another agent is at the server with this site's key",
            hint="end the agent of the other home with this keys/agent.key, such as that which a backup was "
            "made of; one that ended without a word counts as there for a minute more",
        )
    if response.status_code in (502, 503, 504) or 300 <= response.status_code < 400:
        return Unreachable(f"the server answers {response.status_code}")
    return NotAdmitted(
        f"the server refuses this site (HTTP {response.status_code})",
        hint="has the coordinator admitted this site's keys/agent.pub? Is this machine's clock right? "
        "After a retirement: fedai site renew-key HOME",
    )


def _loss(error: Exception) -> FederationError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return WrongServer(
            "the server's certificate is not signed by this site's ca.pem, or is for another name",
            hint="compare the fingerprint of ca.pem with the coordinator's by telephone",
        )
    if any(sign in text for sign in NO_TLS):
        return WrongServer(
            "what answers there doesn't speak TLS as it should", hint="check server.address in site.yaml"
        )
    return Unreachable(
        f"the server can't be reached ({type(error).__name__})", hint="check address, network and proxy"
    )


def _authority(ca: Path) -> bytes:
    """The certificate that the fingerprint was read out of, and no other. Raises WrongServer."""
    try:
        return one_certificate(ca.read_bytes())
    except ConfigError as error:
        raise WrongServer(f"ca.pem: {error.message}", hint=error.hint) from None


def probe(address: str, ca: Path) -> datetime:
    """Ask for nothing and give the server's clock (UTC), for the doctor. Raises Unreachable, WrongServer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=_authority(ca).decode())
    with _told(), httpx.Client(verify=context, timeout=10, follow_redirects=False) as client:
        response = client.get(f"https://{address}/")
    try:
        return parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        raise WrongServer("what answers there doesn't tell the time", hint="check server.address") from None
