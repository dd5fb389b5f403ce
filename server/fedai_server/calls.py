"""What a call of Flower's Control names: numbers, digests, and the name of a site; never what it carries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from fedai.errors import ConfigError
from fedai.fingerprints import key_fingerprint
from fedai.study import NAME_PATTERN

CONTROL = "/v1/control/"
PLAIN_PATH = re.compile(r"/[a-z0-9/._-]{0,80}")
NUMBERS = {"run_id": "number", "node_id": "node", "series_id": "series", "automation_id": "automation"}


def told_of(path: str, body: bytes) -> tuple[str, dict[str, str]]:
    """A call's operation, such as stop-run, and what it names."""
    if not PLAIN_PATH.fullmatch(path):
        return "an odd path", {}
    names = dict(_names(path, body)) if path.startswith(CONTROL) else {}
    return path.removeprefix(CONTROL), names


def _names(path: str, body: bytes) -> Iterator[tuple[str, str]]:
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    kind = PROTOBUF_REQUEST_TYPES.get(("POST", path))
    if kind is None:
        return
    request: Any = kind()
    try:
        request.ParseFromString(body)
    except DecodeError:
        yield "body", "unreadable"
        return
    yield from _named_in(request)
    if hasattr(request, "start_run_request"):
        yield from _named_in(request.start_run_request)


def _named_in(request: Any) -> Iterator[tuple[str, str]]:
    """Numbers and digests; of words only what can be the name of a site."""
    for field, value in request.ListFields():
        if field.name in NUMBERS:
            yield NUMBERS[field.name], str(value)
        elif field.name == "fab":
            yield "bundle", hashlib.sha256(value.content).hexdigest()
        elif field.name == "override_config" and "study" in value:
            yield "study", hashlib.sha256(value["study"].string.encode()).hexdigest()
        elif field.name == "name" and request.DESCRIPTOR.name == "RegisterNodeRequest":
            yield "site", value if re.fullmatch(NAME_PATTERN, value) else "an odd name"
        elif field.name == "public_key":
            yield "key", _fingerprint(value)


def _fingerprint(pem: bytes) -> str:
    try:
        return key_fingerprint(pem)
    except ConfigError:
        return "unreadable"
