"""A federation of fedai on loopback, set up and run by the commands that users type."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.processes import Processes, call, fedai, free_ports, processes


@dataclass(frozen=True)
class Export:
    """A hospital's data as it comes: a folder of DICOM and a table of labels."""

    images: Path
    labels: Path


@dataclass(frozen=True)
class Federation:
    """One server and its sites' homes in a folder."""

    folder: Path
    sites: tuple[str, ...]

    @property
    def server(self) -> Path:
        return self.folder / "server"

    def home(self, site: str) -> Path:
        return self.folder / "sites" / site

    def set_up(self, exports: Mapping[str, Export], studies: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Init, add-data, approve, admit. Gives what add-data told, by site."""
        public, loopback = free_ports(2)
        call(
            fedai(
                "server", "init", self.server, "--public", f"127.0.0.1:{public}", "--loopback-port", loopback
            )
        )
        told = {site: self._set_up_site(site, public, exports[site], studies) for site in self.sites}
        with self._serving():
            for site in self.sites:
                call(fedai("server", "admit", self.server, site, self.home(site) / "keys" / "agent.pub"))
        return told

    def _set_up_site(self, site: str, port: int, export: Export, studies: Sequence[Path]) -> dict[str, Any]:
        settings = self.folder / f"{site}.yaml"
        server = f"{{address: '127.0.0.1:{port}', ca: '{self.server}/kit/ca.pem'}}"
        settings.write_text(f"name: {site}\nserver: {server}\nthreads: 1\n", encoding="utf-8")
        home = self.home(site)
        call(fedai("site", "init", home, "--config", settings))
        words = ("--labels", export.labels, "--no-pixels", "--json")  # its images are public and show no text
        added = call(fedai("site", "add-data", home, export.images, *words))
        for study in studies:
            call(fedai("site", "approve", home, study, "--by", "the benchmark"))
        told: dict[str, Any] = json.loads(added)
        return told

    @contextmanager
    def up(self) -> Iterator[None]:
        """Server and agents run, and are connected, within the block."""
        with self._serving() as running:
            for site in self.sites:
                running.start(site, fedai("site", "start", self.home(site)))
            for site in self.sites:
                running.wait_for(site, "connected")
            yield

    @contextmanager
    def _serving(self) -> Iterator[Processes]:
        with processes(self.folder / "logs") as running:
            running.start("server", fedai("server", "start", self.server))
            running.wait_for("server", "ready ")
            yield running

    def run(self, study: Path) -> str:
        """`fedai run start`, then `fedai run watch` to the end; the run's name."""
        started = call(fedai("run", "start", study, "--home", self.server, "--json"))
        name: str = json.loads(started)["run"]
        call(fedai("run", "watch", name, "--home", self.server))
        return name

    def facts(self, run: str) -> list[tuple[datetime, str, dict[str, Any]]]:
        """When, kind, fact: what the run database tells of a run, in order."""
        with sqlite3.connect(self.server / "runs.sqlite") as database:
            rows = database.execute(
                "SELECT at, kind, fact FROM facts WHERE run = ? ORDER BY seq", (run,)
            ).fetchall()
        return [(datetime.fromisoformat(at), kind, json.loads(fact)) for at, kind, fact in rows]
