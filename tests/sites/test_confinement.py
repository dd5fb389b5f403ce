"""The agent's process reaches the server and nothing else, whatever its training code tries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fedai_site import approvals
from fedai_site.confinement import Elsewhere, destinations
from homes import make_home
from replies_to import STUDY

from fedai.ledger import Ledger

TESTS = Path(__file__).parents[1]


@dataclass
class Called:
    """Of each way to call somebody else: the error that left, '' for an answer; what the ledger and the log
    say, and whether anybody was called.
    """

    errors: dict[str, str]
    lines: dict[str, dict[str, Any]]
    log: str
    port: int
    was_called: bool


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Called:
    """What became of an agent whose training code calls elsewhere; the server listens too."""
    home = make_home(tmp_path_factory.mktemp("site"), patients=28)
    approvals.approve(home.approvals, STUDY, "Dr. Who")
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as server:
        ports = [one.getsockname()[1] for one in (other, server)]
        done = subprocess.run(
            [sys.executable, str(TESTS / "calling_task.py"), str(home.folder), *map(str, ports)],
            capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        other.settimeout(0.2)
        try:
            other.accept()
            was_called = True
        except TimeoutError:
            was_called = False
    lines = {line["run"].removeprefix("calls-"): line for line in Ledger(home.ledger).lines()}
    return Called(json.loads(done.stdout), lines, home.log.read_text(), ports[0], was_called)


@pytest.mark.parametrize("way", ["connect", "library", "name", "send", "listen", "unbound"])
def test_a_task_that_calls_elsewhere_fails(way: str, called: Called) -> None:
    line = called.lines[way]
    if way != "library":  # urllib makes an error of its own of it
        assert (line["code"], line["reason"]) == ("REFUSED", "CONNECTION")
    assert called.errors[way] == f"{line['code']} {line['reference']}"


def test_nobody_is_called_and_the_log_says_who_would_have_been(called: Called) -> None:
    assert not called.was_called
    assert called.log.count(f"socket.connect was refused: ('127.0.0.1', {called.port})") == 3
    assert called.log.count("socket.getaddrinfo was refused: telemetry.invalid") == 1


@pytest.mark.parametrize("way", ["swallow", "none"])
def test_a_library_that_does_not_mind_hinders_nobody(way: str, called: Called) -> None:
    assert (called.errors[way], called.lines[way]["kind"]) == ("", "update")


def test_the_server_and_the_proxy_before_it_are_what_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert destinations("Fl.Example.org:8443") == {("fl.example.org", 8443)}
    assert destinations("[::1]:8443") == {("::1", 8443)}
    assert destinations("병원.example:443") == {("xn--om3bw6p.example", 443)}, "as it is resolved"
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy.hospital.example:3128")
    monkeypatch.setenv("all_proxy", "proxy2.hospital.example")
    assert destinations("fl.example.org:8443") == {
        ("fl.example.org", 8443), ("proxy.hospital.example", 3128), ("proxy2.hospital.example", 80),
    }  # fmt: skip


def test_to_a_library_it_is_a_closed_network_and_to_fedai_a_refusal() -> None:
    error = Elsewhere("no", reason="CONNECTION")
    assert isinstance(error, OSError)
    assert (error.code, error.reason, str(error)) == ("REFUSED", "CONNECTION", "CONNECTION: no")
