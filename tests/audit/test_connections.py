"""No process contacts anything but the SuperLink, by the witness in every one of them (see witness/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from federation_sites import SITES, Federation

pytestmark = pytest.mark.federation
LOOPBACK = "127.0.0.1"


def notes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def calls_in(path: Path) -> set[tuple[str, str, str]]:
    """(event, host, port) of everything in a process's notes that reaches out or asks a resolver."""
    found = set()
    for note in notes(path):
        if note["event"].startswith("socket."):
            address = note["told"][0] if isinstance(note["told"][0], list) else note["told"]
            found.add((note["event"], str(address[0]), str(address[1]) if len(address) > 1 else ""))
    return found


def named(federation: Federation, *words: str) -> list[Path]:
    """The notes of the processes whose command line holds all these words."""
    return [
        path
        for path in federation.witness.iterdir()
        if all(any(word in part for part in notes(path)[0]["told"]) for word in words)
    ]


def test_nothing_but_the_superlink_is_contacted_in_a_whole_run(
    federation: Federation, whole_run: object
) -> None:
    ports = {str(federation.home.settings.public_port), str(federation.home.settings.loopback_port)}
    found = set().union(*(calls_in(path) for path in federation.witness.iterdir()))
    assert {(host, port) for _, host, port in found} == {(LOOPBACK, port) for port in ports}


def test_an_agent_contacts_the_public_port_alone(federation: Federation, whole_run: object) -> None:
    public = str(federation.home.settings.public_port)
    for site in SITES:
        calls = calls_in(federation.witness / f"{federation.sites[site].pid}.jsonl")
        assert calls == {("socket.getaddrinfo", LOOPBACK, public), ("socket.connect", LOOPBACK, public)}


def test_adding_data_contacts_nobody(federation: Federation, whole_run: object) -> None:
    adding = named(federation, "add-data")
    assert len(adding) >= len(SITES)
    assert set().union(*map(calls_in, adding)) == set()


def test_the_servers_processes_are_all_watched_and_the_serverapp_keeps_to_loopback(
    federation: Federation, whole_run: object
) -> None:
    loopback = str(federation.home.settings.loopback_port)
    assert named(federation, "fedai_server.superlink")
    serverapps = named(federation, "flwr-serverapp")
    assert serverapps
    for path in [*serverapps, *named(federation, "fedai_server.superexec")]:
        assert {port for _, _, port in calls_in(path)} == {loopback}
    for path in named(federation, "fedai_server.superlink"):
        assert calls_in(path) == set()


def test_the_witness_sees_what_it_should(federation: Federation, tmp_path: Path) -> None:
    """Called from Python or resolved by name, whatever library does it: it is noted."""
    import subprocess
    import sys

    from federation_sites import environment

    code = """
import socket, httpx, urllib.request
for call in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: httpx.get("http://127.0.0.1:10/"),
             lambda: urllib.request.urlopen("http://telemetry.invalid:11/")):
    try:
        call()
    except Exception:
        pass
"""
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), check=True, timeout=60)
    (path,) = tmp_path.iterdir()
    assert {("127.0.0.1", "9"), ("127.0.0.1", "10"), ("telemetry.invalid", "11")} <= {
        c[1:] for c in calls_in(path)
    }
