"""The server's ledger: every call of Control and every command that changes the home, before it is done.

A line says when, which token's name (`by`) and role, which operation, and what it names: a run by name or
Flower's number, a site, digests of bundle, study and key. Never content, never a token. A call that is
refused has a line too, with `refused`; a call with a token that is nobody's has none (anybody with an account
on this machine can make one), but a line in logs/superlink.log. Where no line can be written nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.heads import Heads, heads_in
from fedai.ledger import Ledger, Verified, check
from fedai_server.calls import told_of
from fedai_server.home import ServerHome
from fedai_server.roles import Holder, acting, holder_of

WRITTEN = ("seq", "time", "by", "role", "operation", "refused", "previous", "hash", "signature")
"""What a line has beside what its operation names."""
ROLE = "the token's role doesn't allow it"
REVOKED = "the token was revoked"
UNKNOWN = "the token is nobody's"


def ledger_of(home: ServerHome) -> Ledger:
    """The home's ledger."""
    return Ledger(home.ledger, heads_of(home), side="server")


def heads_of(home: ServerHome) -> Heads:
    """Where the heads of the home's ledger are."""
    return Heads(home.ledger_heads, home.ledger_key)


def verify(home: ServerHome, witness: Path | None = None) -> Verified:
    """Check chain and heads. Raises DataError naming the first line that is broken, missing or rewritten.

    `witness`: a copy of the file of heads that somebody else kept.
    """
    if witness is not None and not witness.is_file():
        raise ConfigError(f"there is no file {witness}", hint="give a copy of ledger.heads.jsonl")
    return check(ledger_of(home), heads_of(home), list(heads_in(witness)) if witness else ())


def note(home: ServerHome, operation: str, **names: str) -> None:
    """Write down a command that changes the home, before it does. Raises RefusedByPolicy where the token that
    is used (see roles.py) is no coordinator's, DataError where it can't be written.
    """
    holder = acting(home)
    if holder is None:
        raise RefusedByPolicy(UNKNOWN, hint="ask the coordinator for another")
    note_of(home, holder, operation, **names)


def note_of(home: ServerHome, holder: Holder, operation: str, **names: str) -> None:
    """The same of somebody who is known."""
    if not _note(ledger_of(home), holder, operation, names, allowed=holder.may()):
        why = REVOKED if holder.revoked else ROLE
        raise RefusedByPolicy(f"{operation}: {why}", hint="ask the coordinator for another")


def _note(ledger: Ledger, holder: Holder, operation: str, names: dict[str, str], *, allowed: bool) -> bool:
    refused = {} if allowed else {"refused": REVOKED if holder.revoked else ROLE}
    ledger.append(operation=operation, by=holder.name, role=holder.role, **names, **refused)
    return allowed


@dataclass(frozen=True)
class Desk:
    """What the gate of the loopback port asks."""

    home: ServerHome
    ledger: Ledger

    def holder(self, token: bytes) -> Holder | None:
        """Whose token this is."""
        return holder_of(self.home, token)

    def admits(self, holder: Holder, path: str, body: bytes) -> bool:
        """Write a call down; whether its holder may make it. Raises DataError where it can't be written."""
        return _note(self.ledger, holder, *told_of(path, body), allowed=holder.may(path))
