"""An admitted site that speaks for another, or sends little that means much: what the others notice of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fedai_server.admission import admit
from fedai_site.fleet import Fleet, Parcel, connect, pack
from federation_processes import wait_for
from federation_sites import Federation, make_site_home
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from fedai.flower import read_task, reply_record
from fedai.wire import EXCLUSIONS, FLOW, VERSIONS, Reply, Task

pytestmark = pytest.mark.federation
BOMB, PIECES = 5_000_000, 300


@dataclass
class Evil:
    """A site with a real key whose agent is written here."""

    federation: Federation
    fleet: Fleet
    heard: dict[str, Any] = field(default_factory=dict)

    def next_task(self) -> tuple[Task, Message]:
        found: list[Any] = []
        wait_for(lambda: bool(found.append(self.fleet.receive()) or found[-1]), 90, "a task", every_s=0.1)
        message = self.fleet.fetch(found[-1], 10_000_000)
        return read_task(message.content), message

    def status_of(self, call: Callable[[], Any]) -> int:
        """The HTTP status of a call."""
        try:
            call()
        except httpx.HTTPStatusError as error:
            return error.response.status_code
        return 200

    def push(self, message: Message) -> int:
        request = PushMessagesRequest(
            node=self.fleet._node, messages_list=[message_to_proto(message)],
            message_object_trees=[get_object_tree(message)],
        )  # fmt: skip
        return self.status_of(lambda: self.fleet._client.PushMessages(request))

    def tasks_in_database(self, kind: str) -> dict[int, str]:
        """Message by node: what evil would have to guess."""
        with sqlite3.connect(self.federation.home.database) as database:
            rows = database.execute(
                "SELECT dst_node_id, message_id FROM message_ins WHERE message_type = ?", (kind,)
            ).fetchall()
        return {node % (1 << 64): message for node, message in rows}


@pytest.fixture(scope="module")
def evil(federation: Federation) -> Iterator[Evil]:
    home = make_site_home(
        federation.folder / "sites" / "evil", "evil", federation.home.address, federation.home.authority
    )
    admit(federation.home, "evil", home.public_key)
    server = home.settings.server
    with connect(server.address, server.ca, home.private_key) as fleet:
        yield Evil(federation, fleet)


def readiness(study: str) -> Reply:
    return Reply(
        kind="status", task="ready", study=study,
        arrays={"split_patients": np.array([10, 4, 4]), "split_cases": np.array([[5, 5], [2, 2], [2, 2]]),
                "marks": np.zeros((4, 32), np.uint8)},
        metrics={**dict.fromkeys(FLOW, 18), **{f"excluded_{why}": 0 for why in EXCLUSIONS},
                 "overlapping_patients": 0},
        words=dict.fromkeys(VERSIONS, "1.0"),
    )  # fmt: skip


def named(content: RecordDict, task: Message, **metadata: Any) -> Message:
    """An answer to `task` that says of itself what `metadata` says."""
    message = Message(content, reply_to=task)
    for name, value in metadata.items():
        message.metadata.__dict__[f"_{name}"] = value
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def bomb(task: Message, monkeypatch: pytest.MonkeyPatch) -> Parcel:
    """Five megabytes that say they are one and a half gigabytes."""
    array = Array(np.zeros(BOMB, np.uint8))

    def deflate(self: Array) -> bytes:
        facts = {"dtype": "uint8", "shape": [BOMB], "stype": self.stype, "arraychunk_ids": [0] * PIECES}
        return add_header_to_object_body(object_body=json.dumps(facts).encode(), obj=self)

    with monkeypatch.context() as patch:
        patch.setattr(Array, "deflate", deflate)
        message = named(RecordDict({"arrays": ArrayRecord({"parameters": array})}), task)
        with no_object_id_recompute():
            objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
            return Parcel(message, get_object_tree(message), objects)


def peaks_mb(federation: Federation) -> dict[int, int]:
    """The most memory that each of the server's processes ever held."""
    found = {}
    for pid in federation.server.all_pids():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[pid] = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    return found


@pytest.fixture(scope="module")
def outcome(evil: Evil) -> dict[str, Any]:
    """A run with north, in which evil tries everything in round 1; statuses, memory and the record."""
    federation, heard = evil.federation, evil.heard
    study = federation.study("evil", sites=("north", "evil"), approved_by=["north"], quorum=1, grace_s=20,
                             epochs=100)  # fmt: skip
    run = federation.start_run(study)
    task, message = evil.next_task()
    evil.fleet.send(pack(reply_record(readiness(study.sha256)), message), 0.1)
    task, message = evil.next_task()
    assert task.kind == "train"
    north = federation.node_ids()["north"]
    wait_for(lambda: north in evil.tasks_in_database("train"), 30, "north's task")
    its_task = evil.tasks_in_database("train")[north]
    node, run_id, client = evil.fleet._node, message.metadata.run_id, evil.fleet._client
    order = named(RecordDict(), message, src_node_id=1, dst_node_id=north, reply_to_message_id="")
    forged = named(RecordDict(), message, src_node_id=north, reply_to_message_id=its_task)
    heard["order"] = evil.push(order)
    heard["in north's name"] = evil.push(forged)
    heard["to north's question"] = evil.push(named(RecordDict(), message, reply_to_message_id=its_task))
    pull = PullObjectRequest(node=node, run_id=run_id, object_id=its_task)
    heard["pull"] = evil.status_of(lambda: client.PullObject(pull))
    confirm = ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=its_task)
    heard["confirm"] = evil.status_of(lambda: client.ConfirmMessageReceived(confirm))
    before = peaks_mb(federation)
    with pytest.MonkeyPatch.context() as patch:
        parcel = bomb(message, patch)
    heard["bytes sent"] = parcel.size
    evil.fleet.send(parcel, 0.1)
    wait_for(lambda: federation.has_told(run, "round_closed", number=1), 120, federation.told())
    heard["grown"] = max(peak - before.get(pid, 0) for pid, peak in peaks_mb(federation).items())
    return federation.wait_for_run(run)


def test_it_gives_no_orders_to_another_site(evil: Evil, outcome: dict[str, Any]) -> None:
    assert evil.heard["order"] == 403
    lines = evil.federation.sites["north"].ledger("evil-1")
    assert not [line for line in lines if line["kind"] == "error"]


def test_it_answers_for_itself_alone(evil: Evil, outcome: dict[str, Any]) -> None:
    assert (evil.heard["in north's name"], evil.heard["to north's question"]) == (403, 403)
    assert outcome["rounds"][0]["answered"] == ["north"]
    assert outcome["state"] == "finished"


def test_it_neither_fetches_nor_takes_away_what_was_sent_to_another(
    evil: Evil, outcome: dict[str, Any]
) -> None:
    assert (evil.heard["pull"], evil.heard["confirm"]) == (403, 403)


def test_five_megabytes_that_mean_gigabytes_are_refused_before_they_grow(
    evil: Evil, outcome: dict[str, Any]
) -> None:
    assert evil.heard["bytes sent"] < BOMB + 100_000
    assert "bytes once opened" in outcome["rounds"][0]["refused"]["evil"]
    assert evil.heard["grown"] < 250


def test_the_log_names_the_site(evil: Evil, outcome: dict[str, Any]) -> None:
    log = (evil.federation.home.logs / "superlink.log").read_text()
    assert "refused /v1/fleet/push-messages of evil: a message in another site's name" in log
    assert "refused /v1/fleet/pull-object of evil: an object that was not sent to this site" in log


def test_it_is_left_out_of_the_judgement_by_name(evil: Evil, outcome: dict[str, Any]) -> None:
    assert outcome["left_out"] == {"evil": "late"}
