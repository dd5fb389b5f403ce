"""A certificate from the consortium's own authority, and a new one while the server runs.

What is taken is tried as a site would: by TLS, under each of the server's names, in memory.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedai.errors import ConfigError
from fedai.fingerprints import one_certificate
from fedai_server import pki

LOOK_EVERY_S = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """PEM files: the authority's certificate, which sites get; the server's, with those between the two after
    it; and the server's key, without a password.
    """

    authority: Path
    certificate: Path
    key: Path


def take(folder: Path, given: Given, hosts: Iterable[str]) -> None:
    """Copy a certificate into `folder` as ca.pem, server.pem and server.key (0600), for sites to check.

    Raises ConfigError, and changes nothing, where `check` does, or sites trust another authority.
    """
    from fedai_server.home import write_file

    authority, certificate, key = check(given, hosts)
    kept = folder / "ca.pem"
    if kept.exists() and pki.fingerprint(kept.read_bytes()) != pki.fingerprint(authority):
        raise ConfigError(
            f"{given.authority} is another authority than the one that sites were given",
            hint="take a certificate of the same authority, or make a new home and send sites its kit",
        )
    write_file(folder / "server.key", key, mode=0o600)
    write_file(folder / "server.pem", certificate, mode=0o644)
    write_file(kept, authority, mode=0o644)


def check(given: Given, hosts: Iterable[str]) -> tuple[bytes, bytes, bytes]:
    """The contents of the files. Raises ConfigError where one can't be read, the key is another's, or a site
    would refuse the certificate under one of `hosts` (DNS names, IP addresses).
    """
    authority, certificate, key = (_read(file) for file in (given.authority, given.certificate, given.key))
    authority, certificate = _alone(given.authority, authority), _plain(given.certificate, certificate)
    for host in hosts:
        if fault := objection(given, host):
            raise ConfigError(f"a site would refuse {given.certificate} for {host}: {fault}", hint=HINT)
    return authority, certificate, key


HINT = (
    "it needs this name as subjectAltName, and after it in its file those between it and the authority; "
    "--authority is the one that signs itself"
)


def _alone(file: Path, pem: bytes) -> bytes:
    try:
        return one_certificate(pem)
    except ConfigError as error:
        hint = "give the authority's own certificate, which signs itself; sites get this file"
        raise ConfigError(f"{file}: {error.message}", hint=hint) from None


def _plain(file: Path, pem: bytes) -> bytes:
    """Certificates and nothing else: a key in the same file would be for all to read."""
    try:
        chain = x509.load_pem_x509_certificates(pem)
        if pem.count(b"-----BEGIN ") != len(chain):
            raise ValueError
    except ValueError:
        hint = "give the server's certificate, then those between; the key in a file of its own"
        raise ConfigError(f"{file} holds something else than certificates", hint=hint) from None
    return b"".join(one.public_bytes(Encoding.PEM) for one in chain)


def objection(given: Given, host: str) -> str:
    """Why a site that trusts the authority wouldn't speak with such a server under this name; or empty."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.hostname_checks_common_name = False
    try:
        ours.load_cert_chain(given.certificate, given.key, password=_no_password)
        theirs.load_verify_locations(cafile=given.authority)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{given.certificate} and {given.key} don't belong together, or one is no PEM: {error.reason}",
            hint="the key is given without a password",
        ) from None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(there, back, server_side=True)
    site = theirs.wrap_bio(back, there, server_hostname=host)
    for _ in range(4):  # two flights each way at most
        for side in (site, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return error.reason or str(error)
    return "" if site.version() else "the handshake doesn't end"


async def follow(context: ssl.SSLContext, folder: Path) -> None:
    """Let a listener show the certificate of `folder` as it changes, for connections from then on."""
    seen = _stamp(folder)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            if (now := _stamp(folder)) == seen:
                continue
            seen = now  # each is tried once, and told of once
            if _fit(folder):
                context.load_cert_chain(folder / "server.pem", folder / "server.key", _no_password)
                log.warning("the certificate was changed: %d days left", _days(folder))
            else:
                log.warning("server.pem and server.key don't belong together: the one before is shown on")
        except (OSError, ConfigError) as error:  # on its way to its place; ssl.SSLError too
            log.warning("the new certificate can't be read yet: %s", error)


def _fit(folder: Path) -> bool:
    """Whether key and certificate belong together: the one is written after the other."""
    try:
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trial.load_cert_chain(folder / "server.pem", folder / "server.key", _no_password)
    except ssl.SSLError:
        return False
    return True


def _stamp(folder: Path) -> tuple[int, ...]:
    files = [(folder / name).stat() for name in ("server.pem", "server.key")]
    return tuple(number for one in files for number in (one.st_mtime_ns, one.st_ino))


def _days(folder: Path) -> int:
    return pki.days_left((folder / "server.pem").read_bytes())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}", hint="give a PEM file") from None


def _no_password() -> str:
    return ""  # else OpenSSL would ask for it on the terminal
