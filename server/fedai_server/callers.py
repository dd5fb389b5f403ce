"""Who calls, and whether what the call names is the caller's: asked before Flower sees anything of it.

A site signs the time of each call with its key, and sends key, time and signature in the head. Flower checks
them too, but only once it has read and parsed the body, and then believes what a message says of its sender,
and gives any object to any site that names it. Here the head is checked alone, and then what the body names:
a site answers what it was asked, in its own name, and gets what was sent to it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import (
    SUPERLINK_NODE_ID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.utils import uint64_to_int64

Headers = Iterable[tuple[bytes, bytes]]
LONGEST_HEADER = 1000  # a key of P-384 takes 300
SENT_TO = """
WITH RECURSIVE above(id) AS (
  SELECT :object UNION SELECT parent_id FROM object_children JOIN above ON child_id = id)
SELECT 1 FROM message_ins JOIN above ON message_id = id WHERE dst_node_id = :node LIMIT 1
"""
ASKED_IN = "SELECT 1 FROM message_ins WHERE run_id = :run AND dst_node_id = :node LIMIT 1"


@dataclass(frozen=True)
class Claim:
    """What a call's head says of its caller."""

    key: bytes
    timestamp: str
    signature: bytes


@dataclass(frozen=True)
class Caller:
    """An admitted site, by its key's signature."""

    node_id: int
    key: bytes


class Callers:
    """The admitted sites, as the SuperLink's state (its SqlLinkState) knows them at this moment."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def identify(self, headers: Headers) -> Caller | None:
        """Whose call this is; None if it isn't signed, not now, or not by an admitted key."""
        claim = read_claim(headers)
        if claim is None:
            return None
        node_id = self._state.get_node_id_by_public_key(claim.key)
        if node_id is None:
            return None
        signed = verify_signature(_load(claim.key), claim.timestamp.encode("ascii"), claim.signature)
        return Caller(int(node_id), claim.key) if signed else None

    def name_of(self, caller: Caller) -> str:
        """The site's name, for the log."""
        found = self._state.get_node_info(node_ids=[caller.node_id])
        return str(found[0].name) if found else str(caller.node_id)

    def objection(self, path: str, body: bytes, caller: Caller) -> str | None:
        """Why this call is not the caller's to make; None if it is."""
        check = CHECKS.get(path)
        if check is None:
            return None
        request = PROTOBUF_REQUEST_TYPES["POST", path]()
        try:
            request.ParseFromString(body)
        except Exception:  # noqa: BLE001  another process's bytes
            return "it can't be read"
        return check(self, request, caller)

    def was_sent(self, object_id: str, caller: Caller) -> bool:
        """Is this a message to the caller, or a part of one?"""
        return self._finds(SENT_TO, {"object": object_id}, caller)

    def was_asked_in(self, run_id: int, caller: Caller) -> bool:
        """Is there a message of this run to the caller?"""
        return self._finds(ASKED_IN, {"run": uint64_to_int64(run_id)}, caller)

    def _finds(self, question: str, facts: dict[str, Any], caller: Caller) -> bool:
        return bool(self._state.query(question, {**facts, "node": uint64_to_int64(caller.node_id)}))


def read_claim(headers: Headers) -> Claim | None:
    """Key, time and signature of a head; None where one is missing, odd, twice there, or of another time."""
    try:
        key, timestamp, signature = (
            _only(headers, name)
            for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
        )
        age = (now() - datetime.fromisoformat(timestamp)).total_seconds()
        claim = Claim(b64decode(key, validate=True), timestamp, b64decode(signature, validate=True))
    except (ValueError, TypeError, OverflowError):  # a time without its zone is a TypeError
        return None
    return claim if -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE else None


def _only(headers: Headers, wanted: str) -> str:
    (value,) = [value for name, value in headers if name.lower() == wanted.encode()]
    if len(value) > LONGEST_HEADER:
        raise ValueError(wanted)
    return value.decode("ascii")


@lru_cache(maxsize=256)
def _load(admitted: bytes) -> ec.EllipticCurvePublicKey:
    key: ec.EllipticCurvePublicKey = bytes_to_public_key(admitted)
    return key


def _push_objection(callers: Callers, request: Any, caller: Caller) -> str | None:
    """A push is one answer, in the caller's name, to what the caller was asked."""
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return "it isn't one message"
    told = request.messages_list[0].metadata
    if not told.reply_to_message_id:
        return "a message that answers nothing: sites don't ask"
    if told.src_node_id != caller.node_id:
        return "a message in another site's name"
    if told.dst_node_id != SUPERLINK_NODE_ID:
        return "a message to somebody else than the server"
    if told.message_id != request.message_object_trees[0].object_id:
        return "a message whose content is another's"
    if not callers.was_sent(told.reply_to_message_id, caller):
        return "an answer to what this site wasn't asked"
    return None


def _object_objection(callers: Callers, request: Any, caller: Caller) -> str | None:
    return None if callers.was_sent(request.object_id, caller) else "an object that was not sent to this site"


def _confirm_objection(callers: Callers, request: Any, caller: Caller) -> str | None:
    sent = callers.was_sent(request.message_object_id, caller)
    return None if sent else "a message that was not sent to this site"


def _run_objection(callers: Callers, request: Any, caller: Caller) -> str | None:
    asked = callers.was_asked_in(request.run_id, caller)
    return None if asked else "a run in which this site was asked nothing"


CHECKS: dict[str, Callable[[Callers, Any, Caller], str | None]] = {
    "/v1/fleet/push-messages": _push_objection,
    "/v1/fleet/pull-object": _object_objection,
    "/v1/fleet/confirm-message-received": _confirm_objection,
    "/v1/fleet/get-run": _run_objection,
    "/v1/fleet/get-fab": _run_objection,
}
