"""The head of a site's ledger: number and hash of its last line, signed by the site's ledger key.

A head travels with each answer, so that the server holds what the site can't rewrite any more; whoever has
one can say later whether the ledger is still the one that it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedai.signatures import is_signed, public_key, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Head = Mapping[str, Any]
"""lines: int, hash: 64 hex digits, key: 64, signature: 128."""
MOST_LINES = 2**53
PATTERNS = {name: re.compile(f"[0-9a-f]{{{digits}}}") for name, digits in
            (("hash", 64), ("key", 64), ("signature", 128))}  # fmt: skip


def make_head(lines: int, digest: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign number and hash of a ledger's last line."""
    signature = sign("ledger head", {"lines": lines, "hash": digest}, key)
    return {"lines": lines, "hash": digest, "key": public_key(key), "signature": signature}


def head_fault(head: object) -> str:
    """What is wrong with a head by itself, or nothing. A sound one holds no more than it must."""
    if not isinstance(head, Mapping) or set(head) != {"lines", *PATTERNS}:
        return "the ledger's head has other parts than a head has"
    if type(head["lines"]) is not int or not 0 < head["lines"] <= MOST_LINES:
        return "the ledger's head has no number of lines"
    odd = [name for name, pattern in PATTERNS.items() if not _is_hex(head[name], pattern)]
    if odd:
        return f"the ledger's head has an odd {odd[0]}"
    facts = {"lines": head["lines"], "hash": head["hash"]}
    if not is_signed("ledger head", facts, head["key"], head["signature"]):
        return "the ledger's head is not signed by its key"
    return ""


def _is_hex(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def contradiction(before: Head, now: Head) -> str:
    """Why two sound heads of one site, in this order, can't be of one append-only ledger; else nothing."""
    if before["key"] != now["key"]:
        return "signed by another key"
    if now["lines"] < before["lines"]:
        return f"{now['lines']} lines, there were {before['lines']} before"
    if now["lines"] == before["lines"] and now["hash"] != before["hash"]:
        return f"line {now['lines']} has another hash than before"
    return ""
