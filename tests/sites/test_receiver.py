"""`fedai site receive` as a process of its own, pushed to by a real C-STORE client."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dicom_files import encode, radiograph
from fedai_site import inbox
from fedai_site.adding import add_inbox
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret
from fedai_site.home import open_home
from fedai_site.overview import overview
from fedai_site.pacs import Receiver
from pydantic import ValidationError
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

WITNESS = Path(__file__).parents[1] / "audit" / "witness"
COMMAND = [sys.executable, "-c", "from fedai.cli.app import main; main()", "site", "receive"]
CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"


def make_home(folder: Path, **receiver: Any) -> Path:
    (folder / "keys").mkdir(parents=True)
    create_secret(folder / "keys" / "pseudonym.key")
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    settings = {
        "name": "north",
        "server": {"address": "127.0.0.1:1", "ca": "ca.pem"},
        "receiver": {"address": "127.0.0.1:0", "callers": ["PACS"], **receiver},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(settings))
    return folder


class Listening:
    """A receiver at work: its port, its process and what it says."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.witness = folder / "witness"
        environment = {**os.environ, "PYTHONPATH": str(WITNESS), "FEDAI_WITNESS": str(self.witness),
                       "FEDAI_WITNESS_ALSO": "/keys"}  # fmt: skip
        self.output = (folder / "said").open("a+")
        self.process = subprocess.Popen(
            [*COMMAND, str(home)], env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 60
        while not (found := re.search(r"listening on [\d.]+:(\d+)", self.said())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.port = int(found[1])

    def said(self) -> str:
        return Path(self.output.name).read_text()

    def waits_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)


@contextmanager
def listening(home: Path, folder: Path) -> Iterator[Listening]:
    receiver = Listening(home, folder)
    try:
        yield receiver
    finally:
        receiver.process.terminate()
        receiver.process.wait(timeout=30)
        receiver.output.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def entity(title: str = "PACS") -> AE:
    found = AE(title)
    found.add_requested_context(CR, EXPLICIT)
    return found


def push(
    port: int, objects: list[bytes], title: str = "PACS", called: str = "FEDAI", **more: Any
) -> list[int]:
    """The status of each object, nothing where the association isn't accepted."""
    association = entity(title).associate("127.0.0.1", port, ae_title=called, **more)
    if not association.is_established:
        return []
    found = [association.send_c_store(dcmread(BytesIO(data))) for data in objects]
    association.release()
    return [int(one.Status) for one in found]


def test_what_is_pushed_is_in_the_inbox_and_then_in_the_catalogue(home: Path, tmp_path: Path) -> None:
    objects = [encode(radiograph(number, f"P{number}")) for number in range(5)]
    with listening(home, tmp_path) as receiver:
        assert push(receiver.port, [*objects, objects[0]]) == [0] * 6
        receiver.waits_for("6 received, 0 refused")
        said = receiver.said()
    assert len(list(inbox.waiting(home / "inbox"))) == 5
    assert overview(open_home(home))["inbox"] == 5
    added = add_inbox(home, None)
    assert (added.found, added.written) == (5, 5)
    assert list(inbox.waiting(home / "inbox")) == []
    assert "Gildong" not in said
    assert "P1" not in said
    assert "1.2.3" not in said


def test_who_isnt_listed_or_calls_another_title_isnt_heard(home: Path, tmp_path: Path) -> None:
    with listening(home, tmp_path) as receiver:
        data = [encode(radiograph())]
        assert push(receiver.port, data, title="STRANGER") == []
        assert push(receiver.port, data, called="OTHER") == []
        assert push(receiver.port, data) == [0]
    assert "STRANGER" not in receiver.said()
    assert len(list(inbox.waiting(home / "inbox"))) == 1


def test_the_process_opens_no_key_no_catalogue_and_no_connection(home: Path, tmp_path: Path) -> None:
    with listening(home, tmp_path) as receiver:
        assert push(receiver.port, [encode(radiograph())]) == [0]
    (notes,) = receiver.witness.glob(f"{receiver.process.pid}.jsonl")
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    assert lines[0]["event"] == "process"
    told = {(line["event"], str(line["told"][0])) for line in lines[1:] if line["event"] != "process"}
    assert told <= {("socket.getaddrinfo", "127.0.0.1")}  # an address in numbers: nobody is asked


def test_the_witness_would_see_a_key_that_is_opened(home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(WITNESS), "FEDAI_WITNESS": str(tmp_path / "notes"),
                   "FEDAI_WITNESS_ALSO": "/keys"}  # fmt: skip
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).read_bytes()"
    key = str(home / "keys" / "pseudonym.key")
    subprocess.run([sys.executable, "-c", code, key], env=environment, check=True, timeout=60)
    (notes,) = (tmp_path / "notes").iterdir()
    assert [json.loads(line)["told"] for line in notes.read_text().splitlines()][-1] == [key]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there_however_it_ends(
    home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with listening(home, tmp_path) as receiver:
        association = entity().associate("127.0.0.1", receiver.port, ae_title="FEDAI")
        acknowledged = 0
        for each in range(5):
            acknowledged += int(association.send_c_store(radiograph(each, f"P{each}")).Status == 0)
        os.kill(receiver.process.pid, number)
        receiver.process.wait(timeout=30)
        association.abort()
    assert acknowledged == 5
    assert len(list(inbox.waiting(home / "inbox"))) == 5


def test_what_keeps_coming_is_taken_again_and_again(home: Path, tmp_path: Path) -> None:
    words = [*COMMAND[:-1], "add-data", str(home), "--inbox", "--every", "0.1", "--no-pixels"]
    inbox.open_inbox(home)
    taking = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        with listening(home, tmp_path) as receiver:
            for number in range(2):
                assert push(receiver.port, [encode(radiograph(number, f"P{number}"))]) == [0]
                deadline = time.monotonic() + 60
                while len(list((home / "clean").rglob("*.dcm"))) < number + 1 or list(
                    inbox.waiting(home / "inbox")
                ):
                    assert taking.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
    finally:
        taking.kill()
        taking.wait()


def test_a_half_received_object_is_gone_when_the_next_receiver_starts(home: Path, tmp_path: Path) -> None:
    folder = inbox.open_inbox(home)
    (folder / inbox.PARTS / "tmpabc.dcm").write_bytes(b"half")
    with listening(home, tmp_path):
        assert list((folder / inbox.PARTS).iterdir()) == []


def test_a_broken_object_is_kept_and_quarantined_later(home: Path, tmp_path: Path) -> None:
    """The receiver doesn't open what it gets: whatever its bytes are, they are judged by the intake."""
    image = radiograph()
    image.PixelData = b"12"
    with listening(home, tmp_path) as receiver:
        assert push(receiver.port, [encode(image)]) == [0]
    assert add_inbox(home, None).quarantined == {"PIXEL_SIZE": 1}


def test_a_disk_that_cant_be_written_is_no_success(home: Path, tmp_path: Path) -> None:
    data = encode(radiograph())
    with listening(home, tmp_path) as receiver:
        (shelf,) = {path.parent for path in _shelves(home, tmp_path, data)}
        shelf.write_text("in the way")
        (status,) = push(receiver.port, [data])
        assert STORAGE_SERVICE_CLASS_STATUS[status][0] == "Failure"
        shelf.unlink()
        assert push(receiver.port, [data]) == [0]


def _shelves(home: Path, tmp_path: Path, data: bytes) -> list[Path]:
    """Where the receiver would put an object: found by a second receiver of another home."""
    other = make_home(tmp_path / "other")
    (tmp_path / "second").mkdir()
    with listening(other, tmp_path / "second") as receiver:
        assert push(receiver.port, [data]) == [0]
    return [home / path.relative_to(other) for path in inbox.waiting(other / "inbox")]


def test_a_second_receiver_of_a_home_is_refused(home: Path, tmp_path: Path) -> None:
    with listening(home, tmp_path):
        done = subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "another receiver is at work" in done.stderr


def test_a_home_that_names_nobody_who_may_push_has_no_receiver(home: Path) -> None:
    settings = yaml.safe_load((home / "site.yaml").read_text())
    del settings["receiver"]
    (home / "site.yaml").write_text(yaml.safe_dump(settings))
    done = subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "doesn't say who may push" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [{"callers": []}, {"callers": ["A" * 17]}, {"callers": [" PACS"]}, {"callers": ["P\\S"]},
     {"callers": ["PACS"], "address": "11112"}, {"callers": ["PACS"], "address": "pacs.example.org:104"},
     {"callers": ["PACS"], "tls": {"certificate": "a.pem"}}],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Receiver.model_validate(settings)


def test_it_listens_to_this_machine_alone_unless_told_otherwise() -> None:
    assert Receiver(callers=("PACS",)).address.startswith("127.0.0.1:")


def authority(folder: Path, name: str) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key, name, key, is_authority=True)
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _signed(name: str, key: Any, issuer: str, signer: Any, *, is_authority: bool) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        named(issuer), named(name), key.public_key(), x509.random_serial_number(), now - timedelta(days=1),
        now + timedelta(days=1),
    ).add_extension(x509.BasicConstraints(is_authority, None), True)  # fmt: skip
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
    )
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    issued = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(issued, False).sign(signer, hashes.SHA256())


def certified(folder: Path, name: str, by: str, signer: Any) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key, by, signer, is_authority=False)
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def client_context(folder: Path, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "hospital.pem"))
    if pair:
        context.load_cert_chain(*pair)
    return context


def test_with_tls_only_a_peer_with_a_certificate_of_the_authority_is_heard(tmp_path: Path) -> None:
    tls = {"certificate": "fedai.crt", "key": "fedai.key", "ca": "hospital.pem"}
    home = make_home(tmp_path / "home", tls=tls)
    _, signer = authority(home, "hospital")
    _, stranger = authority(tmp_path, "stranger")
    certified(home, "fedai", "hospital", signer)
    mine = certified(tmp_path, "pacs", "hospital", signer)
    others = certified(tmp_path, "other", "stranger", stranger)
    data = [encode(radiograph())]
    with listening(home, tmp_path) as receiver:
        assert "TLS" in receiver.said()
        assert push(receiver.port, data) == []
        for pair, expected in ((None, []), (others, []), (mine, [0])):
            context = client_context(home, pair)
            assert push(receiver.port, data, tls_args=(context, "127.0.0.1")) == expected
    assert len(list(inbox.waiting(home / "inbox"))) == 1
    add_inbox(home, None)
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        assert len(catalogue.labelled()) == 1
