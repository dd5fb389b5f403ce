"""Ed25519 signatures (RFC 8032): of studies, approvals and the heads of ledgers.

A public key is 64 hex digits (its 32 bytes), a signature 128. What is signed begins with what it is a
signature of, so that one of a study is none of an approval.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from fedai.errors import ConfigError
from fedai.yamlfile import Frozen

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Subject = Literal["study", "approval", "ledger head"]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
MAXIMUM_BYTES = 10_000
_PRIME = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER_Y = frozenset({0, 1, _PRIME - 1, _Y8, _PRIME - _Y8})
"""y of the eight points whose order divides 8: "keys" under which anybody can make signatures that verify
(RFC 8032, section 5.1.7 leaves them to the verifier)."""


class StudySignature(Frozen):
    """STUDY.sig: somebody's signature over a study's content hash."""

    study_sha256: Key
    key: Key
    signature: Signature

    def holds(self) -> bool:
        """Whether the signature is that of its key over its hash."""
        return is_signed("study", {"sha256": self.study_sha256}, self.key, self.signature)


def write_key(path: Path) -> str:
    """Make a private key that only its owner may read, and `path`.pub beside it; gives the public key.

    Raises ConfigError where there is a file already.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="name a new file; nothing was changed") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    path.with_name(f"{path.name}.pub").write_bytes(public)
    return public_key(key)


def read_key(path: Path) -> Ed25519PrivateKey:
    """A private key in PEM form. Raises ConfigError where it can't be read or is another kind of key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint="check the path") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 private key", hint="make one with `fedai study key FILE`")
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """The public key that belongs to `key`, as hex."""
    return key.public_key().public_bytes_raw().hex()


def fingerprint(public: str) -> str:
    """SHA-256 of the key's DER form, as `openssl pkey -pubin -outform DER` gives it: hex pairs with colons.

    It is what `fedai.fingerprints.key_fingerprint` says of the same key's PEM file.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest().hex(":")


def sign(subject: Subject, facts: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """The signature of `key` over `facts`, as hex."""
    return key.sign(_signed(subject, facts)).hex()


def is_signed(subject: Subject, facts: Mapping[str, Any], public: str, signature: str) -> bool:
    """Whether `signature` is that of `public`, a key that somebody can own, over exactly these facts."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if _y_of(bytes.fromhex(public)) in SMALL_ORDER_Y:
            return False
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), _signed(subject, facts))
    except (ValueError, InvalidSignature):
        return False
    return True


def _y_of(public: bytes) -> int:
    return (int.from_bytes(public, "little") & (2**255 - 1)) % _PRIME


def _signed(subject: Subject, facts: Mapping[str, Any]) -> bytes:
    return f"fedai {subject}\n".encode() + json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def signature_file(study: Path) -> Path:
    """Where the signature of a study file lies: beside it, with `.sig` at the end."""
    return study.with_name(f"{study.name}.sig")


def sign_study(study: Path, sha256: str, key: Path) -> StudySignature:
    """Sign a study's content hash and write the signature beside its file, in place of an older one."""
    private = read_key(key)
    made = StudySignature(
        study_sha256=sha256,
        key=public_key(private),
        signature=sign("study", {"sha256": sha256}, private),
    )
    partial = study.with_name(f"{signature_file(study).name}.partial")
    partial.write_text(made.model_dump_json(indent=1) + "\n", encoding="ascii")
    partial.replace(signature_file(study))
    return made


def read_signature(study: Path) -> StudySignature | None:
    """The signature beside a study file, not checked yet; None where there is none.

    Raises ConfigError where the file isn't one that `sign_study` writes.
    """
    path = signature_file(study)
    try:
        with path.open("rb") as file:
            return StudySignature.model_validate_json(file.read(MAXIMUM_BYTES))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ConfigError(
            f"{path} is no signature of a study", hint="ask the coordinator for both files again"
        ) from None
