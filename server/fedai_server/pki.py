"""Certificates of the server: one authority of its own, one certificate that sites check against it.

ECDSA on P-384 with SHA-384 throughout (NIST SP 800-57 part 1, 192 bits of strength). Sites get the
authority's certificate by hand, with the server's kit, and compare its fingerprint by telephone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_DAYS = 3650
SERVER_DAYS = 730
BACKDATED = timedelta(days=1)  # a site's clock may run behind ours


@dataclass(frozen=True)
class Authority:
    """Files of the certificate authority."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerCertificate:
    """Files of the certificate that the public listener shows."""

    certificate: Path
    key: Path


def make_authority(folder: Path, *, name: str = "fedai server") -> Authority:
    """Make a certificate authority in `folder`: ca.pem and ca.key (0600).

    Raises ConfigError where one exists already: a new authority would lock all sites out.
    """
    authority = authority_in(folder)
    if authority.key.exists() or authority.certificate.exists():
        raise ConfigError(
            f"there is an authority in {folder} already", hint="keep it: every admitted site trusts it"
        )
    key = _new_key()
    subject = _name(f"{name} authority")
    builder = _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
    _write_secret(authority.key, _key_pem(key))
    _write_public(authority.certificate, _sign(_as_authority(builder, key), key))
    return authority


def authority_in(folder: Path) -> Authority:
    """Where the authority of `folder` rests (whether or not it is there yet)."""
    return Authority(folder / "ca.pem", folder / "ca.key")


def make_server_certificate(folder: Path, hosts: Iterable[str]) -> ServerCertificate:
    """Make (or renew) server.pem and server.key (0600) in `folder`, valid for `hosts`.

    `hosts` are DNS names and IP addresses; localhost and 127.0.0.1 are added. Sites need no new kit after
    a renewal: they trust the authority. Raises ConfigError: no authority, or a name that is none.
    """
    authority_key, authority_certificate = _load_authority(folder)
    key = _new_key()
    names = _alternative_names(hosts)
    builder = _builder(_name("fedai server"), authority_certificate.subject, key.public_key(), SERVER_DAYS)
    made = ServerCertificate(folder / "server.pem", folder / "server.key")
    _write_secret(made.key, _key_pem(key))
    _write_public(made.certificate, _sign(_as_server(builder, names, authority_key), authority_key))
    return made


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate's DER form: lower-case hex in pairs, with colons. Raises ConfigError."""
    from cryptography.hazmat.primitives import hashes

    return load_certificate(pem).fingerprint(hashes.SHA256()).hex(":")


def load_certificate(pem: bytes) -> x509.Certificate:
    """Read one PEM certificate. Raises ConfigError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError("not a PEM certificate", hint="give the file ca.pem of the server's kit") from None


def days_left(pem: bytes) -> int:
    """Whole days until a certificate ends; negative when it has ended."""
    return (load_certificate(pem).not_valid_after_utc - datetime.now(UTC)).days


def names_of(pem: bytes) -> tuple[str, ...]:
    """DNS names and addresses that a certificate is valid for."""
    from cryptography import x509

    try:
        extension = load_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def read_public_key(data: bytes) -> bytes:
    """Read a site's public key (PEM, or one OpenSSH line) and give it as canonical PEM.

    Raises ConfigError unless it is an elliptic-curve key on P-384, which is what `fedai site init` makes.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if b"PRIVATE KEY" in data:
        raise ConfigError("this is a private key", hint="it must not leave the site; ask for keys/agent.pub")
    is_ssh = data.lstrip().startswith((b"ecdsa-", b"ssh-"))
    load = serialization.load_ssh_public_key if is_ssh else serialization.load_pem_public_key
    try:
        key = load(data.strip())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("not a public key", hint="give the site's file keys/agent.pub") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError("the key is not an EC P-384 key", hint="give the site's file keys/agent.pub")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _load_authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = authority_in(folder)
    try:
        key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
        certificate = load_certificate(authority.certificate.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"can't read {error.filename}: {error.strerror}", hint="`fedai server init` makes it"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{authority.key} is not an elliptic-curve key", hint="restore it from your backup")
    return key, certificate


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _as_authority(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    from cryptography import x509

    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).add_extension(_usage(signs=True), critical=True)


def _as_server(
    builder: x509.CertificateBuilder,
    names: x509.SubjectAlternativeName,
    authority: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Key usage of an authority (signs certificates) or of a server (signs handshakes)."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _alternative_names(hosts: Iterable[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    wanted = dict.fromkeys([*hosts, "localhost", "127.0.0.1"])
    return x509.SubjectAlternativeName([_general_name(host) for host in wanted])


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ConfigError(
            f"{host!r} is not a DNS name", hint="write it in ASCII, without https:// or a port"
        ) from None


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(path: Path, content: bytes) -> None:
    from fedai_server.home import write_file

    write_file(path, content, mode=0o600)


def _write_public(path: Path, content: bytes) -> None:
    from fedai_server.home import write_file

    write_file(path, content, mode=0o644)
