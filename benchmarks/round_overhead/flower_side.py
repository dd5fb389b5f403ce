"""The rounds of Flower: flower-superlink and three flower-supernode as they come, with TLS and node keys."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Processes, call, free_ports, processes
from benchmarks.round_overhead.figures import Round
from fedai.errors import OutOfTime

LONGEST_ROUND_S = 300.0
OFF = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class Link:
    """One SuperLink with its nodes in a folder of its own. `data`: the file of arrays of each site."""

    folder: Path
    pki: Path
    keys: Mapping[str, Path]
    data: Mapping[str, Path]

    def environment(self, name: str) -> dict[str, str]:
        """A FLWR_HOME of its own for every process, no proxy; Flower finds its own tools on the PATH."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**OFF, "FLWR_HOME": str(self.folder / name), "NO_PROXY": "127.0.0.1,localhost", "PATH": path}


def measure(link: Link, rounds: int) -> list[Round]:
    """Bring everything up, run FedAvg for `rounds`, take everything down."""
    link.folder.mkdir(parents=True)
    out = link.folder / "times.json"
    port, *node_ports = free_ports(1 + len(link.keys))
    with processes(link.folder / "logs") as running:
        _start_superlink(running, link, port)
        _write_config(link, port)
        for (site, key), node_port in zip(link.keys.items(), node_ports, strict=True):
            _start_supernode(running, link, site, key, port, node_port)
        _flwr(
            link,
            "run",
            _app(link),
            "benchmark",
            "--run-config",
            f'rounds={rounds} sites={len(link.keys)} out="{out}"',
        )
        _wait(running, out, rounds)
    return read_times(json.loads(out.read_text(encoding="utf-8")))


def read_times(told: Mapping[str, list[float]]) -> list[Round]:
    """Rounds from what the ServerApp wrote: times of closing (one more than rounds), seconds of computing."""
    computing = [train + evaluate for train, evaluate in zip(told["train"], told["evaluate"], strict=True)]
    walls = [end - start for start, end in zip(told["closed"], told["closed"][1:], strict=False)]
    return [Round(wall, seconds) for wall, seconds in zip(walls, computing, strict=True)]


def write_keys(source: Path, folder: Path, site: str) -> Path:
    """A site's key in the form that SuperNodes read (OpenSSH), with the public one beside it."""
    from cryptography.hazmat.primitives import serialization as form

    folder.mkdir(parents=True, exist_ok=True)
    key = form.load_pem_private_key(source.read_bytes(), password=None)
    private = folder / site
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()))
    private.chmod(0o600)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    private.with_suffix(".pub").write_bytes(public + b"\n")
    return private


def _start_superlink(running: Processes, link: Link, port: int) -> None:
    words = [
        _tool("flower-superlink"), "--port", port,
        "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--ssl-certfile", link.pki / "server.pem", "--ssl-keyfile", link.pki / "server.key",
        "--ssl-ca-certfile", link.pki / "ca.pem", "--database", link.folder / "superlink.sqlite",
    ]  # fmt: skip
    running.start("superlink", words, link.environment("superlink"))
    running.wait_for("superlink", "Uvicorn running")


def _start_supernode(running: Processes, link: Link, site: str, key: Path, port: int, node_port: int) -> None:
    _flwr(link, "supernode", "register", key.with_suffix(".pub"), "benchmark", "--name", site)
    words = [
        _tool("flower-supernode"), "--superlink", f"127.0.0.1:{port}", "--port", node_port,
        "--root-certificates", link.pki / "ca.pem", "--auth-supernode-private-key", key,
        "--node-config", f'data="{link.data[site]}"',
    ]  # fmt: skip
    running.start(site, words, link.environment(site))


def _write_config(link: Link, port: int) -> None:
    home = link.folder / "cli"
    home.mkdir(parents=True, exist_ok=True)
    address = (
        f'[superlink.benchmark]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{link.pki / "ca.pem"}"\n'
    )
    (home / "config.toml").write_text(f'[superlink]\ndefault = "benchmark"\n\n{address}', encoding="utf-8")


def _app(link: Link) -> Path:
    """A copy of the app: `flwr` writes beside what it builds."""
    app = link.folder / "app"
    shutil.copytree(Path(__file__).parent / "flower_app", app, ignore=shutil.ignore_patterns("__pycache__"))
    return app


def _flwr(link: Link, *words: object) -> str:
    return call([_tool("flwr"), *words], link.environment("cli"))


def _tool(name: str) -> Path:
    """A command of the environment that this Python belongs to."""
    return Path(sys.executable).parent / name


def _wait(running: Processes, out: Path, rounds: int) -> None:
    until = time.monotonic() + LONGEST_ROUND_S * rounds
    while not out.exists():
        running.check()
        if time.monotonic() > until:
            raise OutOfTime("Flower's run didn't end", hint=f"see {running.logs}")
        time.sleep(0.5)
