"""Sites are admitted by key, through the command line, at a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedai_server import pki
from fedai_server.admission import admitted_sites
from federation_processes import RunningServer, make_home, make_site_key

from fedai.cli.app import run
from fedai.errors import ConfigError, FederationError, RefusedByPolicy


def fedai(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """Run one command with --json; gives exit code and the object printed."""
    capsys.readouterr()
    code = run([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.federation
def test_a_site_is_admitted_by_its_key_and_gets_a_kit(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = server.home
    _, public = make_site_key(tmp_path)
    code, said = fedai(capsys, "server", "admit", home.folder, "harbour", public)
    assert (code, said["new"]) == (0, True)
    assert admitted_sites(home)["harbour"] == pki.read_public_key(public.read_bytes())
    kit = yaml.safe_load((Path(said["kit"]) / "kit.yaml").read_text())
    authority = (Path(said["kit"]) / kit["ca"]).read_bytes()
    assert kit["site"] == "harbour"
    assert kit["address"] == home.address
    assert kit["ca_fingerprint"] == pki.fingerprint(authority)
    again, said_again = fedai(capsys, "server", "admit", home.folder, "harbour", public)
    assert (again, said_again) == (0, said | {"new": False})
    _, status = fedai(capsys, "server", "status", home.folder)
    assert status["up"]
    assert {"site": "harbour", "status": "registered", "last_activated_at": ""} in status["sites"]


@pytest.mark.federation
def test_a_name_that_is_taken_by_another_key_is_refused(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = server.home.folder
    first, second = make_site_key(tmp_path, "one")[1], make_site_key(tmp_path, "two")[1]
    assert fedai(capsys, "server", "admit", home, "lake", first)[0] == 0
    code, said = fedai(capsys, "server", "admit", home, "lake", second)
    assert code == RefusedByPolicy.exit_code
    assert "another key" in said["error"]["message"]
    assert "retire" in said["error"]["hint"]
    code, said = fedai(capsys, "server", "admit", home, "pond", first)
    assert code == RefusedByPolicy.exit_code
    assert fedai(capsys, "server", "retire", home, "lake") == (
        0,
        {"ok": True, "site": "lake", "retired": True},
    )
    assert fedai(capsys, "server", "retire", home, "lake") == (
        0,
        {"ok": True, "site": "lake", "retired": False},
    )
    assert fedai(capsys, "server", "admit", home, "lake", first)[0] == FederationError.exit_code
    assert fedai(capsys, "server", "admit", home, "lake", second)[0] == 0
    assert "lake" in admitted_sites(server.home)
    assert len(list((server.home.sites / "retired").iterdir())) == 1


@pytest.mark.federation
def test_what_is_wrong_with_a_key_or_a_name_is_told(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = make_site_key(tmp_path)
    for site, file, told in (
        ("hill", private, "private key"),
        ("hill", tmp_path / "missing", "can't read"),
        ("../hill", public, "can't be a site's name"),
    ):
        code, said = fedai(capsys, "server", "admit", server.home.folder, site, file)
        assert code == ConfigError.exit_code
        assert told in said["error"]["message"]
    assert "hill" not in admitted_sites(server.home)


def test_without_a_server_nobody_is_admitted_and_the_next_step_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path / "home")
    code, said = fedai(capsys, "server", "admit", home.folder, "north", make_site_key(tmp_path)[1])
    assert code == FederationError.exit_code
    assert said["error"]["hint"] == f"start it: fedai server start {home.folder}"
    assert admitted_sites(home) == {}
    code, status = fedai(capsys, "server", "status", home.folder)
    assert (code, status["up"], status["sites"]) == (0, False, [])
