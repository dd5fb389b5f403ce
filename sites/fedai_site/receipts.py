"""Receipts: what the site says that it did for a patient, as JSON signed with a key made for nothing else.

Ed25519 (RFC 8032) over the canonical JSON of everything but the signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedai.errors import ConfigError, DataError, check_there
from fedai_site.home import write_private

KEY, PUBLIC_KEY = "receipts.key", "receipts.pub"
LARGEST = 10_000_000


def sign(keys: Path, facts: Mapping[str, Any]) -> bytes:
    """The receipt's bytes. The key pair is made in the folder `keys` when it is used first."""
    key = _key(keys)
    signature = key.sign(_canonical(facts)).hex()
    return json.dumps({**facts, "signature": signature}, indent=1, sort_keys=True).encode() + b"\n"


def _key(keys: Path) -> Ed25519PrivateKey:
    if not (keys / KEY).exists():
        _make_key(keys)
    key = serialization.load_pem_private_key((keys / KEY).read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("the key for receipts is no Ed25519 key", where=str(keys / KEY), hint="restore it")
    return key


def _make_key(keys: Path) -> None:
    key = Ed25519PrivateKey.generate()
    form = serialization
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (keys / PUBLIC_KEY).write_bytes(public)
    write_private(keys / KEY, pem)


def _canonical(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def key_beside(receipt: Path) -> Path:
    """The public key of the home in whose `receipts` a receipt lies. Raises ConfigError elsewhere, and where
    there is no such receipt.
    """
    check_there(receipt, "receipts lie in the folder receipts of the site's home")
    found = receipt.resolve().parent.parent / "keys" / PUBLIC_KEY
    if not found.is_file():
        raise ConfigError(
            "which site's receipt is it?", where=str(receipt), hint=f"--key FILE: that site's {PUBLIC_KEY}"
        )
    return found


def verify(receipt: Path, key: Path) -> dict[str, Any]:
    """The facts of a receipt that the holder of `key` signed, byte for byte.

    Raises ConfigError for a file that is no key, DataError for a receipt that was changed or is another's.
    """
    try:
        public = serialization.load_pem_public_key(key.read_bytes())
    except (OSError, ValueError):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError("this is no public key for receipts", where=str(key), hint=f"give a {PUBLIC_KEY}")
    facts = _read(receipt)
    try:
        public.verify(bytes.fromhex(facts.pop("signature")), _canonical(facts))
    except (InvalidSignature, ValueError, TypeError, KeyError, AttributeError):
        raise _no_receipt(
            receipt, "the signature doesn't hold: it was changed, or signed by another"
        ) from None
    return facts


def _read(receipt: Path) -> dict[str, Any]:
    try:
        raw = receipt.read_bytes()[:LARGEST]
        facts = json.loads(raw)
        whole = json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n" == raw
    except OSError as error:
        raise ConfigError(f"can't read {receipt}: {error.strerror}", hint="check the path") from None
    except (ValueError, RecursionError):
        raise _no_receipt(receipt, "it isn't JSON") from None
    if not isinstance(facts, dict) or not whole:
        raise _no_receipt(receipt, "it isn't as this site writes it")
    return facts


def _no_receipt(receipt: Path, why: str) -> DataError:
    return DataError(f"not a true receipt: {why}", where=str(receipt), hint="ask the site for its copy")
