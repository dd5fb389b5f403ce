"""What two people read out to each other by telephone before they trust a key or a certificate."""

from __future__ import annotations

import hashlib

from fedai.errors import ConfigError


def key_fingerprint(pem: bytes) -> str:
    """SHA-256 of a public key's DER form: lower-case hex in pairs, with colons. Raises ConfigError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("not a public key in PEM form", hint="is this the site's keys/agent.pub?") from None
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest().hex(":")


def certificate_fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate's DER form, written likewise. Raises ConfigError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    return x509.load_pem_x509_certificate(one_certificate(pem)).fingerprint(SHA256()).hex(":")


def one_certificate(pem: bytes) -> bytes:
    """The one certificate of a PEM file, and nothing else of it. Raises ConfigError where there are others,
    or a key: what is trusted is what the fingerprint is of.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        (found,) = x509.load_pem_x509_certificates(pem)
        if pem.count(b"-----BEGIN ") != 1:
            raise ValueError
    except ValueError:
        raise ConfigError(
            "not one certificate in PEM form, and that alone", hint="ask the coordinator for ca.pem"
        ) from None
    return found.public_bytes(Encoding.PEM)
