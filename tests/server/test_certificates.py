"""A certificate of another authority, made here with a certificate between, and taken by a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fedai_server import certificates, pki
from fedai_server.certificates import Given, follow, take
from fedai_server.home import ServerHome, init_home
from federation_processes import RunningServer

from fedai.cli.app import run
from fedai.errors import ConfigError

HOSTS = ("fed.example.org", "192.0.2.7")
Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(name: str, by: Signer | None, *, ca: bool, hosts: tuple[str, ...] = (), days: int = 2) -> Signer:
    """A certificate as a hospital's authority makes it: P-256, no names of this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    begun = datetime.now(UTC) - timedelta(days=5)
    issuer, signer = (by[0].subject, by[1]) if by else (named(name), key)
    builder = x509.CertificateBuilder(issuer, named(name), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(begun).not_valid_after(datetime.now(UTC) + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if hosts:
        names = [pki._general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


class Hospital:
    """An authority with a certificate between it and those of servers, and their files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.root = signed("hospital root", None, ca=True)
        self.between = signed("hospital issuing", self.root, ca=True)

    def gives(self, *, hosts: tuple[str, ...] = HOSTS, days: int = 2, whole: bool = True) -> Given:
        leaf, key = signed("fed.example.org", self.between, ca=False, hosts=hosts, days=days)
        given = Given(*(self.folder / name for name in ("root.pem", "chain.pem", "leaf.key")))
        pem = serialization.Encoding.PEM
        given.authority.write_bytes(self.root[0].public_bytes(pem))
        chain = [leaf, self.between[0]] if whole else [leaf]
        given.certificate.write_bytes(b"".join(one.public_bytes(pem) for one in chain))
        private = serialization.PrivateFormat.PKCS8
        given.key.write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
        return given


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "hospital")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pki").mkdir()
    return tmp_path / "pki"


def test_what_a_site_would_accept_is_taken_and_the_key_is_ours_alone(
    folder: Path, hospital: Hospital
) -> None:
    take(folder, hospital.gives(), HOSTS)
    taken = Given(*(folder / name for name in ("ca.pem", "server.pem", "server.key")))
    assert [certificates.objection(taken, host) for host in HOSTS] == ["", ""]
    assert taken.key.stat().st_mode & 0o777 == 0o600
    assert "mismatch" in certificates.objection(taken, "evil.example.org")


def test_what_a_site_would_refuse_is_refused_and_nothing_is_written(folder: Path, hospital: Hospital) -> None:
    faults: tuple[tuple[dict[str, Any], str], ...] = (
        ({"hosts": HOSTS[:1]}, "192.0.2.7: IP address mismatch"),
        ({"hosts": ()}, "fed.example.org: Hostname mismatch"),  # a common name isn't one
        ({"days": -1}, "certificate has expired"),
        ({"whole": False}, "unable to get local issuer"),
    )
    for asked, why in faults:
        with pytest.raises(ConfigError, match=why):
            take(folder, hospital.gives(**asked), HOSTS)
    with pytest.raises(ConfigError, match="can't read nosuch"):
        take(folder, replace(hospital.gives(), authority=Path("nosuch")), HOSTS)
    other = Hospital(hospital.folder.with_name("other")).gives()
    with pytest.raises(ConfigError, match="don't belong together"):
        take(folder, replace(hospital.gives(), key=other.key), HOSTS)
    with pytest.raises(ConfigError, match="signature failure"):
        take(folder, replace(hospital.gives(), authority=other.authority), HOSTS)
    assert not list(folder.iterdir())


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(folder: Path, hospital: Hospital) -> None:
    given = hospital.gives()
    key = serialization.load_pem_private_key(given.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    given.key.write_bytes(key.private_bytes(pem, form, locked))
    with pytest.raises(ConfigError, match="don't belong together") as error:
        take(folder, given, HOSTS)
    assert "without a password" in error.value.hint


def test_files_that_hold_more_than_they_should_are_refused(folder: Path, hospital: Hospital) -> None:
    """What is beside the certificates would be copied to where everybody may read it."""
    given, other = hospital.gives(), Hospital(hospital.folder.with_name("other")).gives()
    for file, more in (
        (given.authority, other.authority),
        (given.authority, given.key),
        (given.certificate, given.key),
    ):
        before = file.read_bytes()
        file.write_bytes(before + more.read_bytes())
        with pytest.raises(ConfigError, match=f"{file.name}.*(that alone|else than certificates)"):
            take(folder, given, HOSTS)
        file.write_bytes(before)
    assert not list(folder.iterdir())
    take(folder, given, HOSTS)


def test_another_authority_than_sites_were_given_is_refused(folder: Path, hospital: Hospital) -> None:
    take(folder, hospital.gives(), HOSTS)
    before = (folder / "server.pem").read_bytes()
    with pytest.raises(ConfigError, match="another authority"):
        take(folder, Hospital(hospital.folder.with_name("other")).gives(), HOSTS)
    assert (folder / "server.pem").read_bytes() == before
    take(folder, hospital.gives(), HOSTS)
    assert (folder / "server.pem").read_bytes() != before


def test_a_home_takes_it_from_init_on_and_renew_takes_the_next_one(
    tmp_path: Path, hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    given, home = hospital.gives(hosts=("127.0.0.1",)), str(tmp_path / "home")
    files = ["--certificate", str(given.certificate), "--key", str(given.key)]
    assert run(["server", "init", home, *files]) == ConfigError.exit_code
    words = ["server", "init", home, "--authority", str(given.authority), *files, "--public", HOSTS[0]]
    assert run(words) == ConfigError.exit_code
    assert "a site would refuse" in capsys.readouterr().err
    assert not Path(home).exists()
    assert run(["server", "init", home, "--authority", str(given.authority), *files, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["ca_fingerprint"] == pki.fingerprint(given.authority.read_bytes())
    assert (Path(made["kit"]) / "ca.pem").read_bytes() == given.authority.read_bytes()
    assert not (tmp_path / "home" / "pki" / "ca.key").exists()
    assert run(["server", "doctor", home, "--json"]) == 0
    assert run(["server", "renew", home]) == ConfigError.exit_code
    hospital.gives(hosts=("127.0.0.1",))
    assert run(["server", "renew", home, *files]) == 0
    assert (tmp_path / "home" / "pki" / "server.pem").read_bytes() == given.certificate.read_bytes()


def test_a_home_of_its_own_authority_takes_no_other_certificate(tmp_path: Path, hospital: Hospital) -> None:
    home = init_home(tmp_path / "home")
    given = hospital.gives(hosts=("127.0.0.1",))
    words = ["server", "renew", str(home.folder), "--certificate", str(given.certificate)]
    assert run([*words, "--key", str(given.key)]) == ConfigError.exit_code


def shown(home: ServerHome) -> str:
    """The certificate that the public listener shows."""
    address = ("127.0.0.1", home.settings.public_port)
    return ssl.get_server_certificate(address, ca_certs=str(home.authority), timeout=5)


@pytest.mark.federation
def test_a_server_shows_a_renewed_certificate_without_a_restart(server: RunningServer) -> None:
    home, processes = server.home, (server.home.state / "processes").read_text()
    before = shown(home)
    assert run(["server", "renew", str(home.folder)]) == 0
    asyncio.run(until_another(home, before))
    assert shown(home).split() == (home.pki / "server.pem").read_text().split()
    assert (home.state / "processes").read_text() == processes


async def until_another(home: ServerHome, before: str) -> None:
    async with asyncio.timeout(30):
        while await asyncio.to_thread(shown, home) == before:
            await asyncio.sleep(0.2)


def test_a_certificate_whose_key_isnt_there_yet_is_not_shown(
    folder: Path, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.02)
    take(folder, hospital.gives(), HOSTS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    first = (folder / "server.pem").read_bytes()

    async def change() -> list[bytes]:
        seen = []
        following = asyncio.create_task(follow(context, folder))
        given = hospital.gives()
        (folder / "new").write_text("-----BEGIN TRUSTED CERTIFICATE-----")
        (folder / "new").replace(folder / "server.pem")
        await asyncio.sleep(0.1)
        assert not following.done(), "what is no certificate doesn't end it"
        for name, content in (("server.key", given.key), ("server.pem", given.certificate)):
            (folder / "new").write_bytes(content.read_bytes())
            (folder / "new").replace(folder / name)
            await asyncio.sleep(0.3)
            seen.append(leaf_of(context, folder / "ca.pem"))
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        return seen

    between, after = asyncio.run(change())
    assert between == ssl.PEM_cert_to_DER_cert(
        first.decode().split("-----END")[0] + "-----END CERTIFICATE-----"
    )
    last = (folder / "server.pem").read_text().split("-----END")[0] + "-----END CERTIFICATE-----"
    assert after == ssl.PEM_cert_to_DER_cert(last) != between


def leaf_of(context: ssl.SSLContext, authority: Path) -> bytes:
    """What a connection made now gets to see."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.load_verify_locations(cafile=authority)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(there, back, server_side=True)
    site = theirs.wrap_bio(back, there, server_hostname=HOSTS[0])
    for side in (site, server, site, server, site):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return site.getpeercert(binary_form=True) or b""
