"""Who may ask what of this server: tokens, each with a name and a role.

A `coordinator` may do everything, an `observer` list and watch. The home's own `secrets/control.token` is a
coordinator's and named `control`. Of every other token the home keeps name, role and SHA-256 in
`secrets/tokens/`; the token itself is in a file of its holder's. A name is given once: what was revoked stays
known, so that the ledger can say whose a refused call was.

Commands take the token file that FEDAI_CONTROL_TOKEN names, else the home's own. Who can write the home can
do everything whatever his role is: roles hold towards those who reach the loopback port alone, and keep the
others from doing by mistake what isn't theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from fedai.errors import ConfigError
from fedai_server.home import ServerHome, check_site_name, write_file

Role = Literal["coordinator", "observer"]
OWN = "control"  # the name of the home's token
RESERVED = (OWN, "server")
VARIABLE = "FEDAI_CONTROL_TOKEN"
LONGEST_TOKEN = 1000
OBSERVED = frozenset(
    f"/v1/control/{call}" for call in ("list-runs", "list-nodes", "stream-logs", "stream-run-events")
)
"""What an observer may call."""


@dataclass(frozen=True)
class Holder:
    """Who holds a token."""

    name: str
    role: Role
    revoked: bool = False

    def may(self, path: str | None = None) -> bool:
        """Whether the holder may make a call; without `path` whether he may change something."""
        return not self.revoked and (self.role == "coordinator" or path in OBSERVED)


SUPERVISOR = Holder("server", "coordinator")
"""Not a token: what `fedai server start` does by itself."""


def holder_of(home: ServerHome, token: bytes) -> Holder | None:
    """Whose token this is; None for one that is nobody's. Digests are compared, so time tells nothing."""
    known = [(_own(home), Holder(OWN, "coordinator")), *_kept(home)]
    digest = hashlib.sha256(token).hexdigest() if token else None
    return next((holder for kept, holder in known if kept == digest), None)


def holders(home: ServerHome) -> list[Holder]:
    """All of them, the home's own first, then by name."""
    return [Holder(OWN, "coordinator"), *(holder for _, holder in _kept(home))]


def token_file(home: ServerHome) -> Path:
    """The file of the token that commands use."""
    return Path(named) if (named := os.environ.get(VARIABLE)) else home.control_token


def read_token(path: Path) -> str:
    """A token of its file. Raises ConfigError, which never quotes it."""
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint=f"see {VARIABLE}") from None
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.decode().isprintable():
        raise ConfigError(f"{path} holds no token", hint=f"see {VARIABLE}")
    return token.decode()


def acting(home: ServerHome) -> Holder | None:
    """Who gives a command; None where the token is nobody's."""
    return holder_of(home, read_token(token_file(home)).encode())


def check_new(home: ServerHome, name: str, file: Path) -> None:
    """Raise ConfigError where there can't be a token of this name in this file."""
    check_site_name(name)
    if name in RESERVED or _record(home, name).exists():
        raise ConfigError(f"a token is or was named {name}", hint="each name is given once; choose another")
    if file.exists() or file.resolve().is_relative_to(home.folder.resolve()):
        raise ConfigError(f"{file} exists or is in the home", hint="name a new file elsewhere with --out")


def make_token(home: ServerHome, name: str, role: Role, file: Path) -> Holder:
    """Write a new token to `file` (0600), and what the home keeps of it. Raises ConfigError."""
    check_new(home, name, file)
    token = secrets.token_urlsafe(48).encode()
    holder = Holder(name, role)
    _keep(home, holder, hashlib.sha256(token).hexdigest())
    try:
        write_file(file, token, mode=0o600)
    except OSError as error:
        _record(home, name).unlink()
        raise ConfigError(f"can't write {file}: {error.strerror}", hint="check the path") from None
    return holder


def check_there(home: ServerHome, name: str) -> Holder:
    """The holder of that name. Raises ConfigError where there is none that can be revoked."""
    found = [holder for holder in holders(home) if holder.name == name]
    if not found or name == OWN:
        hint = f"see `fedai server token {home.folder}`; the home's own is in {home.control_token}"
        raise ConfigError(f"no token is named {name} that could be revoked", hint=hint)
    return found[0]


def revoke(home: ServerHome, name: str) -> bool:
    """End a token for good, at once; False where it was ended before. Raises ConfigError."""
    holder = check_there(home, name)
    digest = next(digest for digest, kept in _kept(home) if kept.name == name)
    _keep(home, Holder(name, holder.role, revoked=True), digest)
    return not holder.revoked


def _own(home: ServerHome) -> str:
    """The digest of the home's own token; empty where the home has none."""
    try:
        return hashlib.sha256(home.control_token.read_bytes().strip()).hexdigest()
    except OSError:
        return ""


def _record(home: ServerHome, name: str) -> Path:
    return home.tokens / f"{name}.json"


def _keep(home: ServerHome, holder: Holder, digest: str) -> None:
    home.tokens.mkdir(mode=0o700, exist_ok=True)
    kept = {"role": holder.role, "sha256": digest, "revoked": holder.revoked}
    write_file(_record(home, holder.name), json.dumps(kept).encode() + b"\n", mode=0o600)


def _kept(home: ServerHome) -> list[tuple[str, Holder]]:
    """(digest, holder) by name; a file that isn't as `_keep` writes it counts as revoked."""
    found = []
    for path in sorted(home.tokens.glob("*.json")):
        try:
            kept = json.loads(path.read_bytes())
            role, digest, revoked = kept["role"], str(kept["sha256"]), kept["revoked"] is not False
        except (OSError, ValueError, LookupError, TypeError):
            role, digest, revoked = "", "", True
        known = role in get_args(Role)
        holder = Holder(path.stem, cast(Role, role if known else "observer"), revoked or not known)
        found.append((digest, holder))
    return found
