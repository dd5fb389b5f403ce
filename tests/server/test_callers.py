"""Who is let in by the head alone, and what an admitted site may name: on a real SuperLink's state.

Heads are made by Flower's own interceptor, as an agent has it; a red test here may mean: Flower moved.
"""

from __future__ import annotations

import datetime
import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fedai_server import callers as module
from fedai_server.callers import CHECKS, Caller, Callers
from fedai_server.gate import NOT_YOURS, PUBLIC_PATHS
from fedai_server.superlink import make_application
from federation_processes import make_home
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

Headers = list[tuple[bytes, bytes]]


def head_of(private: ec.EllipticCurvePrivateKey) -> Headers:
    """The head that Flower's client would send, as ASGI gives it to us."""
    request = httpx.Request("POST", "https://fed.example.org/v1/fleet/pull-messages")
    NodeAuthHttpInterceptor(private, private.public_key()).intercept(
        SimpleNamespace(request=request), lambda _: None
    )  # type: ignore[arg-type,return-value]
    return [(name.lower(), value) for name, value in request.headers.raw]


def changed(head: Headers, name: bytes, value: bytes | None) -> Headers:
    rest = [header for header in head if header[0] != name]
    return rest if value is None else [*rest, (name, value)]


@dataclass
class House:
    """A SuperLink's state with two sites, and a run in which `north` was asked something."""

    state: Any
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    nodes: dict[str, Caller] = field(default_factory=dict)
    run_id: int = 0
    tasks: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.callers = Callers(self.state)

    def admit(self, name: str) -> None:
        private, public = generate_key_pairs()
        key = public_key_to_bytes(public)
        node_id = self.state.create_node("none", "none", key, 0, name=name)
        self.state.activate_node(node_id, 30)
        self.keys[name], self.nodes[name] = private, Caller(node_id, key)

    def ask(self, name: str, monkeypatch: pytest.MonkeyPatch) -> Message:
        """A task to a site, as the SuperLink stores it."""
        for fact, value in {"_task_id": 1, "_run_id": self.run_id, "_node_id": 1}.items():
            monkeypatch.setattr(TaskIdentity, fact, value)
        task = Message(
            RecordDict({"task": ConfigRecord({"site": name})}), self.nodes[name].node_id, "train", ttl=99
        )
        task.metadata.__dict__["_message_id"] = task.object_id
        session = self.state.start_session(self.run_id)
        stored, _ = self.state.store_message_and_object_tree(task, get_object_tree(task), session)
        assert stored
        return task

    def objection(self, call: str, request: Any, name: str) -> str | None:
        return self.callers.objection(f"/v1/fleet/{call}", request.SerializeToString(), self.nodes[name])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    application = make_application(make_home(tmp_path_factory.mktemp("callers") / "home"))
    house = House(application.state.linkstate_factory.state())
    for name in ("north", "evil"):
        house.admit(name)
    house.run_id = house.state.create_run(
        None, None, None, {}, "@none/default", None, None, TaskType.SERVER_APP
    )
    with pytest.MonkeyPatch.context() as patch:
        house.tasks = {name: house.ask(name, patch) for name in ("north", "evil")}
    return house


def test_a_head_that_flower_signed_is_the_sites(house: House) -> None:
    for name, private in house.keys.items():
        assert house.callers.identify(head_of(private)) == house.nodes[name]
        assert house.callers.name_of(house.nodes[name]) == name


def test_a_key_that_is_not_admitted_is_nobody(house: House) -> None:
    assert house.callers.identify(head_of(generate_key_pairs()[0])) is None


def test_a_retired_key_is_nobody_at_once(house: House) -> None:
    house.admit("leaver")
    head = head_of(house.keys["leaver"])
    assert house.callers.identify(head) is not None
    house.state.delete_node("none", house.nodes["leaver"].node_id)
    assert house.callers.identify(head) is None


def test_a_head_with_anothers_key_is_nobody(house: House) -> None:
    mine, theirs = head_of(house.keys["evil"]), dict(head_of(house.keys["north"]))
    assert house.callers.identify(changed(mine, b"flwr-public-key", theirs[b"flwr-public-key"])) is None


@pytest.mark.parametrize("name", [b"flwr-public-key", b"flwr-timestamp", b"flwr-signature"])
@pytest.mark.parametrize("value", [None, b"", b"====", b"\xff", b"A" * 2000, b"2026-01-01T00:00:00+00:00"])
def test_a_head_with_a_part_missing_or_odd_is_nobody(house: House, name: bytes, value: bytes | None) -> None:
    assert house.callers.identify(changed(head_of(house.keys["north"]), name, value)) is None


def test_a_head_that_says_a_thing_twice_is_nobody(house: House) -> None:
    head = head_of(house.keys["north"])
    assert house.callers.identify([*head, (b"flwr-timestamp", dict(head)[b"flwr-timestamp"])]) is None


@pytest.mark.parametrize(("seconds", "known"), [(-290, True), (-320, False), (3, True), (20, False)])
def test_a_head_is_good_for_five_minutes_and_a_little_ahead(
    house: House, monkeypatch: pytest.MonkeyPatch, seconds: float, known: bool
) -> None:
    head = head_of(house.keys["north"])
    later = module.now() - datetime.timedelta(seconds=seconds)
    monkeypatch.setattr(module, "now", lambda: later)
    assert (house.callers.identify(head) is not None) is known


def test_a_time_without_its_zone_is_nobodys(house: House) -> None:
    head = changed(head_of(house.keys["north"]), b"flwr-timestamp", b"2026-01-01T00:00:00")
    assert house.callers.identify(head) is None


def test_flower_still_checks_the_head_as_we_do() -> None:
    """Same headers, same signed text, same window: what Flower would refuse later we refuse before."""
    from flwr.superlink.routers.fleet import node_auth

    source = inspect.getsource(node_auth.authenticate_node)
    for part in ("FLEET_HTTP_PUBLIC_KEY_HEADER", "FLEET_HTTP_SIGNATURE_HEADER", "TIMESTAMP_HEADER",
                 'timestamp.encode("ascii")', "-SYSTEM_TIME_TOLERANCE", "TIMESTAMP_TOLERANCE + SYSTEM_TIME",
                 "get_node_id_by_public_key(public_key) != node_id"):  # fmt: skip
        assert part in source, part


def test_every_call_is_one_that_flower_parses_as_we_do_or_names_its_caller_alone() -> None:
    """Calls without a check of ours name no message but the caller's, whose node Flower compares."""
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    rest = {path: PROTOBUF_REQUEST_TYPES["POST", path] for path in PUBLIC_PATHS - CHECKS.keys()}
    assert {
        path.rsplit("/", 1)[1]: sorted(kind.DESCRIPTOR.fields_by_name) for path, kind in rest.items()
    } == {
        "activate-node": ["heartbeat_interval", "public_key"],
        "deactivate-node": ["node_id"],
        "send-node-heartbeat": ["heartbeat_interval", "node"],
        "pull-messages": ["message_ids", "node"],
        "push-object": ["node", "object_content", "object_id", "run_id", "session_id"],
    }


def test_what_a_refused_site_hears_is_what_an_agent_takes_for_a_runs_end() -> None:
    from flwr.supercore.error import ApiErrorCode, FlowerError

    told = FlowerError.from_json(NOT_YOURS.decode())
    assert told is not None
    assert told.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED


def push(house: House, *, task: str = "evil", name: str = "evil", **metadata: Any) -> PushMessagesRequest:
    """An answer of `name` to the task of `task`; `metadata` says of it what isn't so."""
    answer = Message(RecordDict(), reply_to=house.tasks[task])
    answer.metadata.__dict__["_src_node_id"] = house.nodes[name].node_id
    for fact, value in metadata.items():
        answer.metadata.__dict__[f"_{fact}"] = value
    answer.metadata.__dict__.setdefault("_message_id", "")
    answer.metadata.__dict__["_message_id"] = metadata.get("message_id", answer.object_id)
    return PushMessagesRequest(
        messages_list=[message_to_proto(answer)], message_object_trees=[get_object_tree(answer)]
    )


def test_a_site_may_answer_what_it_was_asked(house: House) -> None:
    for name in ("north", "evil"):
        assert house.objection("push-messages", push(house, task=name, name=name), name) is None


def test_a_site_may_say_nothing_else(house: House) -> None:
    north = house.nodes["north"].node_id
    forged = {
        "in another": push(house, src_node_id=north),
        "answers nothing": push(house, reply_to_message_id="", src_node_id=1, dst_node_id=north),
        "somebody else": push(house, dst_node_id=north),
        "content is another's": push(house, message_id="0" * 64),
        "wasn't asked": push(house, task="north"),
        "isn't one message": PushMessagesRequest(),
    }
    told = {why: house.objection("push-messages", request, "evil") for why, request in forged.items()}
    assert all(why in (objection or "") for why, objection in told.items()), told
    two = push(house)
    two.MergeFrom(push(house, src_node_id=north))
    assert house.objection("push-messages", two, "evil") == "it isn't one message"
    assert house.callers.objection("/v1/fleet/push-messages", b"\xff", house.nodes["evil"])


def test_a_site_gets_and_confirms_what_was_sent_to_it_and_nothing_else(house: House) -> None:
    task = house.tasks["north"]
    identifiers = [tree.object_id for tree in iterate_object_tree(get_object_tree(task))]
    assert len(identifiers) == 3
    for identifier in identifiers:
        request = PullObjectRequest(run_id=house.run_id, object_id=identifier)
        assert house.objection("pull-object", request, "north") is None
        assert "not sent" in str(house.objection("pull-object", request, "evil"))
    confirm = ConfirmMessageReceivedRequest(run_id=house.run_id, message_object_id=task.metadata.message_id)
    assert house.objection("confirm-message-received", confirm, "north") is None
    assert "not sent" in str(house.objection("confirm-message-received", confirm, "evil"))


def test_of_what_is_not_there_a_site_hears_the_same_as_of_what_is_not_its_own(house: House) -> None:
    foreign, absent = (
        house.objection("pull-object", PullObjectRequest(object_id=identifier), "evil")
        for identifier in (house.tasks["north"].metadata.message_id, "0" * 64)
    )
    assert foreign == absent is not None


def test_a_site_hears_of_runs_in_which_it_was_asked(house: House) -> None:
    house.admit("bystander")
    for call, kind in (("get-run", GetRunRequest), ("get-fab", GetFabRequest)):
        assert house.objection(call, kind(run_id=house.run_id), "north") is None
        assert "asked nothing" in str(house.objection(call, kind(run_id=house.run_id), "bystander"))
        assert "asked nothing" in str(house.objection(call, kind(run_id=4711), "north"))
