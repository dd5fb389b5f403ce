"""Random tokens instead of derived pseudonyms, with the way back under two persons' locks.

HIPAA 164.514(c) wants a code that isn't derived from the person, PIPA 28-4 the additional information apart,
encrypted and destroyable. A vault is a folder of its own: `tokens.sqlite` (tokens, and identities sealed by
AES-256-GCM to an X25519 key), `lookup.key` (finds the token of an identifier seen before), `sealed.key` (the
X25519 private key, wrapped by two shares together) and `log.jsonl` (each look back, see vaultlog.py). Who
cleans images can seal but never open: that takes both shares, which two persons keep elsewhere.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
import unicodedata
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedai.errors import ConfigError, RefusedByPolicy
from fedai_site.deidentify import vaultlog
from fedai_site.deidentify.pseudonyms import Pseudonyms, make_private, name_of

SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    lookup BLOB PRIMARY KEY,       -- HMAC-SHA-256 of kind and identifier
    kind TEXT NOT NULL, token TEXT NOT NULL UNIQUE, sealed BLOB NOT NULL
)
"""
BYTES = 32
NONCE_BYTES = 12


def create_vault(folder: Path, shares: tuple[Path, Path]) -> None:
    """Make a vault and the two shares that open it together.

    Raises ConfigError if anything is there already, or if a share would lie in the vault's folder.
    """
    inside = [path for path in shares if path.resolve().is_relative_to(folder.resolve())]
    if inside:
        hint = "who has the vault must not have its shares: keep each with its person"
        raise ConfigError("a share inside the vault's folder", where=", ".join(map(str, inside)), hint=hint)
    taken = [path for path in (folder, *shares) if path.exists()]
    if taken:
        raise ConfigError(
            "there is something already", where=", ".join(map(str, taken)), hint="choose new names"
        )
    for made in (folder, *(share.parent for share in shares)):
        make_private(made)
    private = X25519PrivateKey.generate()
    halves = [secrets.token_bytes(BYTES) for _ in shares]
    nonce = secrets.token_bytes(NONCE_BYTES)
    wrapped = nonce + AESGCM(_derived(b"".join(halves), b"wrap")).encrypt(
        nonce, private.private_bytes_raw(), b""
    )
    for path, content in (
        *zip(shares, halves, strict=True),
        (folder / "lookup.key", secrets.token_bytes(BYTES)),
        (folder / "public.key", private.public_key().public_bytes_raw()),
        (folder / "sealed.key", wrapped),
    ):
        _write_private(path, content)
    _tokens(folder).close()
    vaultlog.begin(folder, private.private_bytes_raw())


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=BYTES, salt=None, info=b"fedai vault " + purpose).derive(secret)


def _tokens(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / vaultlog.DATABASE, timeout=60)
    (folder / vaultlog.DATABASE).chmod(0o600)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(SCHEMA)
    return database


class Vault:
    """Gives each identifier a random token, the same each time. Safe for several processes at once.

    Raises ConfigError where there is no vault, RefusedByPolicy where its log was changed or cut.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        hint = "make one: fedai site deid vault create"
        try:
            self.lookup_key = (folder / "lookup.key").read_bytes()
            self._public = X25519PublicKey.from_public_bytes((folder / "public.key").read_bytes())
        except (OSError, ValueError):
            raise ConfigError("this isn't a vault", where=str(folder), hint=hint) from None
        self._database = _tokens(folder)
        vaultlog.check(folder)

    @property
    def id(self) -> str:
        """Names the vault without giving anything away: 16 hex digits."""
        return sha256(b"fedai vault" + self._public.public_bytes_raw()).hexdigest()[:16]

    def token(self, kind: str, *parts: str) -> bytes:
        """16 random bytes for an identifier of a kind (`patient`, `uid`, ...), made at its first use.

        Composed and decomposed letters (NFC, NFD) are the same.
        """
        identity = "\x1f".join(parts)
        text = unicodedata.normalize("NFC", f"{kind}\x1f{identity}")
        lookup = hmac.digest(self.lookup_key, text.encode("utf-8", "surrogatepass"), sha256)
        if (found := self._find(lookup)) is None:
            made = secrets.token_bytes(16)
            sealed = _seal(self._public, identity.encode("utf-8", "surrogatepass"), _context(kind, made))
            row = (lookup, kind, made.hex(), sealed)
            with self._database as database:
                database.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?)", row)
            found = self._find(lookup)
        if found is None:
            raise ConfigError("the vault doesn't keep what is written to it", where=str(self._folder))
        return bytes.fromhex(found)

    def _find(self, lookup: bytes) -> str | None:
        row = self._database.execute("SELECT token FROM tokens WHERE lookup = ?", (lookup,)).fetchone()
        return None if row is None else str(row[0])


def _seal(public: X25519PublicKey, content: bytes, context: bytes) -> bytes:
    once = X25519PrivateKey.generate()
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_derived(once.exchange(public), b"seal")).encrypt(nonce, content, context)
    return once.public_key().public_bytes_raw() + nonce + sealed


def _unseal(private: X25519PrivateKey, sealed: bytes, context: bytes) -> bytes:
    once = X25519PublicKey.from_public_bytes(sealed[:BYTES])
    nonce, content = sealed[BYTES : BYTES + NONCE_BYTES], sealed[BYTES + NONCE_BYTES :]
    return AESGCM(_derived(private.exchange(once), b"seal")).decrypt(nonce, content, context)


def _context(kind: str, token: bytes) -> bytes:
    return kind.encode() + b"\x1f" + token


def reidentify(
    folder: Path, pseudonym: str, shares: tuple[Path, Path], *, reason: str, persons: tuple[str, str]
) -> list[str]:
    """The identifiers behind a patient's token, after the look back has been logged.

    Raises RefusedByPolicy without a reason, two different persons and both shares, for a token that this
    vault never gave, or where the log was changed or cut. Refusals are logged as well. Raises ConfigError
    where there is no vault.
    """
    _check_is_vault(folder)
    entry: dict[str, object] = {"pseudonym": pseudonym, "reason": reason.strip(), "persons": list(persons)}
    try:
        private = _opened(folder, shares, reason, persons)
        vaultlog.check(folder, private.private_bytes_raw())
        parts = _unsealed(folder, pseudonym, private)
    except RefusedByPolicy as error:
        vaultlog.append(folder, {**entry, "refused": error.message})
        raise
    vaultlog.append(folder, {**entry, "refused": ""})
    return parts


def _check_is_vault(folder: Path) -> None:
    if not (folder / vaultlog.DATABASE).is_file():
        raise ConfigError("this isn't a vault, or it was destroyed", where=str(folder))


def begin_anew(folder: Path, shares: tuple[Path, Path], *, reason: str, persons: tuple[str, str]) -> str:
    """Begin a new log in place of one that was changed or cut, by two persons with both shares and a reason.

    What is left of the old one stays beside it; its name is given back. Raises RefusedByPolicy without all of
    these, or for a log that is in order.
    """
    _check_is_vault(folder)
    secret = _opened(folder, shares, reason, persons).private_bytes_raw()
    try:
        vaultlog.check(folder, secret)
    except RefusedByPolicy as error:
        why = error.message
    else:
        raise RefusedByPolicy("the log is in order", hint="it goes on as it is")
    aside = vaultlog.set_aside(folder)
    vaultlog.begin(folder, secret)
    entry = {"began_anew": why, "aside": aside, "reason": reason.strip(), "persons": list(persons)}
    vaultlog.append(folder, entry)
    return aside


def _opened(
    folder: Path, shares: tuple[Path, Path], reason: str, persons: tuple[str, str]
) -> X25519PrivateKey:
    if not reason.strip():
        raise RefusedByPolicy("no look back without a reason", hint="give --reason")
    if len({person.strip().casefold() for person in persons} - {""}) != 2:
        raise RefusedByPolicy("two different persons must agree", hint="give --by twice")
    try:
        halves = [path.read_bytes() for path in shares]
        wrapped = (folder / "sealed.key").read_bytes()
    except OSError:
        raise RefusedByPolicy(
            "the vault or a share isn't there", hint="give the share of each person"
        ) from None
    for order in (halves, halves[::-1]):
        try:
            raw = AESGCM(_derived(b"".join(order), b"wrap")).decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], b""
            )
            return X25519PrivateKey.from_private_bytes(raw)
        except InvalidTag:
            continue
    raise RefusedByPolicy("these two shares don't open this vault", hint="give the share of each person")


def _unsealed(folder: Path, pseudonym: str, private: X25519PrivateKey) -> list[str]:
    """The parts of the identifier that a patient's token stands for."""
    database = sqlite3.connect(folder / "tokens.sqlite")
    try:
        rows = database.execute(
            "SELECT token, kind, sealed FROM tokens WHERE kind LIKE 'patient%'"
        ).fetchall()
    finally:
        database.close()
    for token, kind, sealed in rows:
        if name_of(bytes.fromhex(token)) == pseudonym:
            identity = _unseal(private, sealed, _context(kind, bytes.fromhex(token)))
            return identity.decode("utf-8", "surrogatepass").split("\x1f")
    raise RefusedByPolicy("this vault never gave that pseudonym", hint="is it of another site or project?")


def destroy(folder: Path) -> None:
    """Log it, delete the keys, then the rest: from the first deletion on nobody can lead a token back.

    Raises ConfigError where there is no vault.
    """
    _check_is_vault(folder)
    vaultlog.append(folder, {"destroyed": True})
    database = vaultlog.DATABASE
    for name in ("sealed.key", "lookup.key", "public.key", f"{database}-wal", f"{database}-shm", database):
        path = folder / name
        if path.exists():
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()


class VaultPseudonyms(Pseudonyms):
    """The names that `Pseudonyms` gives, from random tokens of a vault instead of digests."""

    def __init__(self, folder: Path) -> None:
        self._vault = Vault(folder)
        super().__init__(self._vault.lookup_key)

    @property
    def key_id(self) -> str:
        return self._vault.id

    def _digest(self, purpose: str, *parts: str) -> bytes:
        if purpose == "label":  # matches label rows inside the site; never written into an object
            return super()._digest(purpose, *parts)
        return self._vault.token(purpose, *parts)
