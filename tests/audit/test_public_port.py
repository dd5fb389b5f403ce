"""The port that sites reach: Fleet calls over TLS for admitted keys, and nothing else.

tests/server/test_superlink.py and test_gate.py ask it in every odd way; here is the short form, on the server
that the other audits use.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from fedai_server import pki
from fedai_server.gate import PUBLIC_PATHS
from fedai_server.superlink import make_application
from federation_processes import fedai_command, make_home
from federation_sites import Federation, environment, make_site_home

pytestmark = pytest.mark.federation


def test_every_control_runtime_and_documentation_path_is_404(federation: Federation, tmp_path: Path) -> None:
    from fastapi.routing import iter_route_contexts

    routes = iter_route_contexts(make_application(make_home(tmp_path / "home")).routes)
    paths = {context.route.path for context in routes} - PUBLIC_PATHS
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json"} <= paths
    trust = ssl.create_default_context(cafile=str(federation.home.authority))
    with httpx.Client(base_url=f"https://{federation.home.address}", verify=trust, trust_env=False) as client:
        answers = {
            (method, path): client.request(method, path).status_code
            for path in paths
            for method in ("GET", "POST")
        }
    assert {asked: code for asked, code in answers.items() if code != 404} == {}


def test_plain_text_is_refused(federation: Federation) -> None:
    with socket.create_connection(("127.0.0.1", federation.home.settings.public_port), 10) as plain:
        plain.sendall(
            b"POST /v1/fleet/activate-node HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )
        plain.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(1024)


def start_agent(home: Path, witness: Path, give_up_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*fedai_command(), "site", "start", str(home), "--give-up-s", str(give_up_s)],
                          capture_output=True, text=True, timeout=120, check=False,
                          env=environment(witness))  # fmt: skip


def test_an_unadmitted_key_is_refused_and_told_what_to_do(federation: Federation, tmp_path: Path) -> None:
    home = make_site_home(
        tmp_path / "stranger", "stranger", federation.home.address, federation.home.authority
    )
    done = start_agent(home.folder, federation.witness, 1)
    assert done.returncode == 5, done
    assert "refuses this site" in done.stderr
    assert "admitted this site's keys/agent.pub" in done.stderr
    assert "trying again" in done.stdout


def test_a_site_with_another_authority_turns_away_at_once(federation: Federation, tmp_path: Path) -> None:
    pki.make_authority(tmp_path)
    home = make_site_home(tmp_path / "misled", "misled", federation.home.address, tmp_path / "ca.pem")
    done = start_agent(home.folder, federation.witness, 60)
    assert done.returncode == 5, done
    assert "not signed by this site's ca.pem" in done.stderr
    assert "fingerprint" in done.stderr
    assert "trying again" not in done.stdout
