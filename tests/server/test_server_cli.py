"""`fedai server` beside admission: init, doctor, renew, and speed of --help."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fedai_server import pki
from fedai_server.home import open_home
from federation_processes import fedai_command, free_port, make_home

from fedai.cli.app import run
from fedai.errors import ConfigError


def test_init_prints_what_the_sites_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["server", "init", str(tmp_path / "home"), "--public", "fed.example.org:9443",
                 "--name", "fed2.example.org", "--loopback-port", "9444", "--json"]  # fmt: skip
    assert run(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["address"] == "fed.example.org:9443"
    assert said["ca_fingerprint"] == pki.fingerprint((Path(said["kit"]) / "ca.pem").read_bytes())
    assert "fed2.example.org" in pki.names_of((tmp_path / "home/pki/server.pem").read_bytes())
    assert open_home(tmp_path / "home").settings.loopback_port == 9444


def test_init_twice_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["server", "init", str(tmp_path / "home")]) == 0
    before = (tmp_path / "home/pki/ca.pem").read_bytes()
    assert run(["server", "init", str(tmp_path / "home")]) == ConfigError.exit_code
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "home/pki/ca.pem").read_bytes() == before


def test_a_fresh_home_is_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home")
    assert run(["server", "doctor", str(home.folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"]
    assert [check["name"] for check in said["checks"]] == [
        "secrets", "certificate", "names", "flower", "serverapp", "ports", "bundle", "ledger", "disk",
    ]  # fmt: skip


def test_the_doctor_finds_an_open_key_a_taken_port_and_a_missing_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path / "home")
    home.control_token.chmod(0o644)
    file = home.folder / "server.yaml"
    file.write_text(file.read_text().replace("names: []", "names: [new.example.org]"))
    with socket.create_server(("127.0.0.1", home.settings.public_port)):
        assert run(["server", "doctor", str(home.folder), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    bad = {check["name"]: check for check in said["checks"] if not check["ok"]}
    assert set(bad) == {"secrets", "names", "ports"}
    assert all(check["hint"] for check in bad.values())
    assert run(["server", "renew", str(home.folder)]) == 0
    assert "new.example.org" in pki.names_of((home.pki / "server.pem").read_bytes())


def test_help_answers_at_once() -> None:
    begun = time.monotonic()
    subprocess.check_output([*fedai_command(), "server", "--help"])
    alone = time.monotonic()
    subprocess.check_output([sys.executable, "-c", "import typer, rich"])
    assert (alone - begun) < 3 * (time.monotonic() - alone) + 0.5


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, fedai.cli.app as a; a.run(['server', 'start', '--help']); print(sorted(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    for heavy in ("torch", "flwr", "cryptography", "pydantic", "uvicorn", "httpx", "numpy"):
        assert f"'{heavy}'" not in loaded, heavy


def test_an_address_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["server", "init", str(tmp_path / "home"), "--public", "https://x"]) == ConfigError.exit_code
    assert "HOST:PORT" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
    assert run(["server", "init", str(tmp_path / "h2"), "--public", f"localhost:{free_port()}"]) == 0


def test_what_is_wrong_with_an_option_of_init_is_told_with_the_options_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("--public", "https://x"), ("--name", "a b"), ("--loopback-port", "0")):
        assert run(["server", "init", str(tmp_path / "home"), option, value]) == 2
        assert f"error: {option}: " in capsys.readouterr().err
