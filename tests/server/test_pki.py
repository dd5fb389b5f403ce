"""The authority and the server's certificate, checked by TLS itself."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import BasicConstraints, load_pem_x509_certificate
from fedai_server import pki
from federation_processes import make_site_key

from fedai.errors import ConfigError


def handshake(server: pki.ServerCertificate, authority: Path, name: str) -> str:
    """Shake hands over a socket pair as a site would; gives the TLS version, or raises ssl.SSLError."""
    left, right = socket.socketpair()
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(server.certificate, server.key)

    def serve() -> None:
        try:
            ours.wrap_socket(left, server_side=True).close()
        except OSError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ssl.create_default_context(cafile=str(authority)).wrap_socket(
            right, server_hostname=name
        ) as seen:
            return seen.version() or ""
    finally:
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.make_authority(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["fed.example.org", "192.0.2.7", "localhost", "127.0.0.1", "2001:db8::1"])
def test_a_site_accepts_the_server_under_each_of_its_names(folder: Path, name: str) -> None:
    made = pki.make_server_certificate(folder, ["fed.example.org", "192.0.2.7", "2001:db8::1"])
    assert handshake(made, folder / "ca.pem", name) == "TLSv1.3"


def test_a_site_refuses_the_server_under_another_name(folder: Path) -> None:
    made = pki.make_server_certificate(folder, ["fed.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made, folder / "ca.pem", "evil.example.org")


def test_a_site_refuses_a_server_of_another_authority(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pki.make_authority(other)
    made = pki.make_server_certificate(other, ["fed.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, folder / "ca.pem", "fed.example.org")


def test_the_servers_certificate_cannot_sign_another(folder: Path) -> None:
    made = pki.make_server_certificate(folder, ["fed.example.org"])
    certificate = load_pem_x509_certificate(made.certificate.read_bytes())
    assert not certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    authority = load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    constraints = authority.extensions.get_extension_for_class(BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_keys_are_readable_by_their_owner_only(folder: Path) -> None:
    made = pki.make_server_certificate(folder, [])
    for key in (folder / "ca.key", made.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_validity_is_ten_years_for_the_authority_and_two_for_the_server(folder: Path) -> None:
    made = pki.make_server_certificate(folder, [])
    assert 3640 < pki.days_left((folder / "ca.pem").read_bytes()) <= 3650
    assert 720 < pki.days_left(made.certificate.read_bytes()) <= 730


def test_an_authority_is_never_made_twice_in_a_folder(folder: Path) -> None:
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="already"):
        pki.make_authority(folder)
    assert (folder / "ca.key").read_bytes() == before


def test_a_renewed_certificate_needs_no_new_kit(folder: Path) -> None:
    first = pki.make_server_certificate(folder, ["a.example.org"]).certificate.read_bytes()
    made = pki.make_server_certificate(folder, ["b.example.org"])
    assert made.certificate.read_bytes() != first
    assert handshake(made, folder / "ca.pem", "b.example.org")


def test_the_fingerprint_is_the_sha256_of_the_certificate(folder: Path) -> None:
    pem = (folder / "ca.pem").read_bytes()
    told = pki.fingerprint(pem)
    assert bytes.fromhex(told.replace(":", "")) == load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    assert len(told) == 95
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        pki.fingerprint(b"hello")


def test_names_that_are_none_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="not a DNS name"):
        pki.make_server_certificate(folder, ["krankenhaus-süd.example"])


def test_a_sites_key_reads_the_same_as_openssh_and_as_pem(tmp_path: Path) -> None:
    _, public = make_site_key(tmp_path)
    pem = pki.read_public_key(public.read_bytes())
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert pki.read_public_key(pem) == pem
    assert pki.read_public_key(public.read_bytes().strip() + b" engineer@north\n") == pem


def test_a_private_key_is_refused_by_name(tmp_path: Path) -> None:
    private, _ = make_site_key(tmp_path)
    with pytest.raises(ConfigError, match="private key"):
        pki.read_public_key(private.read_bytes())


def _pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ssh-ed25519 nonsense",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        _pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        _pem(ed25519.Ed25519PrivateKey.generate().public_key()),
        b"\x00" * 100,
    ],
)
def test_what_is_no_p384_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        pki.read_public_key(data)
