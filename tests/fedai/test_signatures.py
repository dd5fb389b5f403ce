"""What a signature is worth: a key that nobody has signs nothing."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedai.signatures import SMALL_ORDER_Y, _signed, is_signed, public_key, sign

PRIME = 2**255 - 19


def encodings() -> list[bytes]:
    """Points of small order with either sign, y as it is and, where that fits, one prime above."""
    ys = [y + more for y in SMALL_ORDER_Y for more in (0, PRIME) if y + more < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)]


def forged(public: bytes) -> tuple[dict[str, int], bytes] | None:
    """Facts and a signature without any secret that verify under this key, if there are such."""
    for lines in range(1, 200):
        facts = {"lines": lines}
        for first in encodings():
            signature = first + bytes(32)
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed("ledger head", facts))
            except (InvalidSignature, ValueError):
                continue
            return facts, signature
    return None


def test_a_signature_that_anybody_can_make_is_none() -> None:
    found = [(public, made) for public in encodings() if (made := forged(public)) is not None]
    assert found, "the library itself refuses such keys now: the check can go"
    for public, (facts, signature) in found:
        assert not is_signed("ledger head", facts, public.hex(), signature.hex())


@pytest.mark.parametrize("changed", ["facts", "key", "signature", "subject", ""])
def test_a_signature_is_of_one_key_over_exactly_these_facts(changed: str) -> None:
    key = Ed25519PrivateKey.generate()
    facts, public, signature = {"sha256": "ab"}, public_key(key), sign("study", {"sha256": "ab"}, key)
    if changed == "facts":
        facts = {"sha256": "ac"}
    if changed == "key":
        public = public_key(Ed25519PrivateKey.generate())
    if changed == "signature":
        signature = signature[:-2] + ("00" if signature[-2:] != "00" else "01")
    subject = "approval" if changed == "subject" else "study"
    assert is_signed(subject, facts, public, signature) == (changed == "")
