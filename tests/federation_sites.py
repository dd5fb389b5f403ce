"""A federation of real processes for tests: invented images, homes, agents, studies, runs, and faults."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fedai_server.admission import admit
from fedai_server.home import ServerHome
from fedai_server.launch import launch
from fedai_server.runs import OVER, RunDatabase
from fedai_site import approvals
from fedai_site.home import SiteHome, SiteSettings, create_home, open_home
from federation_processes import (
    RunningServer,
    end,
    fedai_command,
    logs_of,
    make_home,
    start_server,
    wait_for,
)

from fedai.demo.hospital import write_image
from fedai.study import Study

SITES = ("north", "east", "south")
PATIENTS = 28  # three or more of each class in each split: of fewer patients nothing leaves
SIDE = 24
CONNECT_S = 180.0  # on a machine that has much else to do; a second or two where it hasn't
RUN_S = 180.0
WITNESS = Path(__file__).parent / "audit" / "witness"
WATCHED = Path(__file__).parent / "watched_site.py"
FAULTY = Path(__file__).parent / "faulty_site.py"


@dataclass
class Site:
    """A site's home and, while it works, its agent's process."""

    home: SiteHome
    environment: dict[str, str]
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.home.settings.name

    @property
    def output(self) -> Path:
        return self.home.folder / "agent.out"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the agent and wait until it says that it is connected."""
        before = self.said("connected")
        self.begin()
        wait_for(lambda: self.said("connected") > before, CONNECT_S, f"the agent of {self.name}")

    def begin(self) -> None:
        """Start the agent's process."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, env=self.environment)

    def said(self, text: str) -> int:
        """How often the agent's output holds `text`."""
        return self.output.read_text(errors="replace").count(text) if self.output.exists() else 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the agent; gives its exit code."""
        assert self.process is not None
        return end(self.process, number)  # type: ignore[arg-type]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ledger(self, run: str) -> list[dict[str, Any]]:
        """The ledger's lines of one run, by its name (run-ID if refused before the name was known)."""
        from fedai.ledger import Ledger

        return [line for line in Ledger(self.home.ledger).lines() if line["run"] == run]


@dataclass
class Federation:
    """One server and its sites; `received` is what was recorded, `witness` what processes did."""

    folder: Path
    server: RunningServer
    sites: dict[str, Site] = field(default_factory=dict)
    identifiers: list[str] = field(default_factory=list)

    @property
    def home(self) -> ServerHome:
        return self.server.home

    @property
    def runs(self) -> RunDatabase:
        return RunDatabase(self.home.folder / "runs.sqlite")

    @property
    def received(self) -> Path:
        return self.folder / "received"

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    def study(self, name: str, *, approved_by: Iterable[str] | None = None, **changes: Any) -> Study:
        """A tiny study, approved at its sites (or at `approved_by`); see `study_of` for `changes`."""
        study = study_of(name, **changes)
        for site in study.sites if approved_by is None else approved_by:
            approvals.approve(self.sites[site].home.approvals, study, "tests")
        return study

    def start_run(self, study: Study) -> str:
        return launch(self.home, study)

    def wait_for_run(self, run: str, seconds: float = RUN_S) -> dict[str, Any]:
        """The record of a run at its end."""
        try:
            wait_for(lambda: self.runs.get(run).state in OVER, seconds, f"the end of {run}")
            return self.runs.record(run)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.runs.record(run)}\n{self.told()}") from None

    def run(self, study: Study, seconds: float = RUN_S) -> dict[str, Any]:
        return self.wait_for_run(self.start_run(study), seconds)

    def has_told(self, run: str, kind: str, **facts: Any) -> bool:
        """Whether a fact of this kind with these values is in the run database."""
        return any(facts.items() <= fact.items() for _, _, fact in self.runs.facts(run, kind))

    def node_ids(self) -> dict[str, int]:
        from fedai_server.control import Control

        with Control(self.home) as control:
            return {site.name: site.node_id for site in control.list_sites()}

    def told(self) -> str:
        """The ends of all logs, for a failing test's message."""
        parts = [logs_of(self.home)]
        parts += [
            f"--- {s.name}\n{s.home.log.read_text()[-2000:]}"
            for s in self.sites.values()
            if s.home.log.exists()
        ]
        return "\n".join(parts)

    def add_site(
        self,
        name: str,
        *,
        faults: Path | None = None,
        batches: Path | None = None,
        data: bool = True,
        address: str = "",
    ) -> Site:
        """Make a home, fill it, admit it and start its agent.

        With faults, where a plan is given; writing down every batch, where a file is. `address`: of the
        server, where it isn't its own.
        """
        site = self.prepare_site(name, faults=faults, batches=batches, address=address)
        if data:
            self.finish_adding(site, self.begin_adding(site))
        admit(self.home, name, site.home.public_key)
        site.start()
        return site

    def prepare_site(
        self,
        name: str,
        *,
        faults: Path | None = None,
        batches: Path | None = None,
        address: str = "",
    ) -> Site:
        address = address or self.home.address
        home = make_site_home(self.folder / "sites" / name, name, address, self.home.authority)
        tail = ["site", "start", str(home.folder)]
        command = [*fedai_command(), *tail]
        for script, file in ((FAULTY, faults), (WATCHED, batches)):
            command = [sys.executable, str(script), str(file), *tail] if file is not None else command
        self.sites[name] = Site(home, environment(self.witness), command)
        return self.sites[name]

    def begin_adding(self, site: Site) -> subprocess.Popen[bytes]:
        images = self.folder / "hospitals" / site.name
        self.identifiers += write_patients(images, site.name, seed=sum(map(ord, site.name)))
        words = [
            "site",
            "add-data",
            str(site.home.folder),
            str(images / "export"),
            "--labels",
            str(images / "labels.csv"),
            "--no-pixels",
        ]
        return subprocess.Popen([*fedai_command(), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=environment(self.witness))  # fmt: skip

    def finish_adding(self, site: Site, process: subprocess.Popen[bytes]) -> None:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode(errors="replace")


@contextmanager
def federate(folder: Path, names: Sequence[str] = SITES) -> Iterator[Federation]:
    """A server that records, and the agents of these sites, connected; all end with the block."""
    with ExitStack() as stack:
        with _as_environment(environment(folder / "witness")):  # the server's starter takes none
            server = stack.enter_context(
                start_server(make_home(folder / "server"), record=folder / "received")
            )
        federation = Federation(folder, server)
        stack.callback(_end_agents, federation)
        _join(federation, names)
        yield federation


@contextmanager
def _as_environment(wanted: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end_agents(federation: Federation) -> None:
    for site in federation.sites.values():
        if site.process is not None:
            site.signal(signal.SIGCONT)
            site.stop()


def _join(federation: Federation, names: Sequence[str]) -> None:
    sites = [federation.prepare_site(name) for name in names]
    adding = [(site, federation.begin_adding(site)) for site in sites]
    for site, process in adding:
        federation.finish_adding(site, process)
        admit(federation.home, site.name, site.home.public_key)
    for site in sites:
        site.start()


def environment(witness: Path) -> dict[str, str]:
    """One thread, and the witness in every Python process."""
    path = os.pathsep.join(filter(None, (str(WITNESS), os.environ.get("PYTHONPATH", ""))))
    more = {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "FEDAI_WITNESS": str(witness),
        "PYTHONPATH": path,
    }
    return {**os.environ, **more}


def make_site_home(folder: Path, name: str, address: str, authority: Path) -> SiteHome:
    """As `fedai site init` makes it, asking often; what left is kept, and the heads have a witness."""
    witness = folder.parent.parent / "heads"
    witness.mkdir(exist_ok=True)
    facts = {
        "witness": witness,
        "keep_sent_days": 1,
        "name": name,
        "server": {"address": address, "ca": authority},
        "threads": 1,
        "poll_idle_s": 1.0,
    }
    create_home(folder, SiteSettings.model_validate({**facts, "poll_active_s": 0.2}))
    return open_home(folder)


def write_patients(folder: Path, site: str, *, seed: int, patients: int = PATIENTS) -> list[str]:
    """Small images with and without a bright square, and labels.csv; gives every planted identifier."""
    rng = np.random.default_rng(seed)
    planted = []
    (folder / "export").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("PatientID", "label"))
        for number in range(patients):
            name, patient = f"Planted{site.title()}{number}^Invented", f"MRN-{site}-{number:04d}"
            pixels = rng.integers(0, 2000, (SIDE, SIDE), np.uint16)
            if number % 2:
                pixels[6:16, 6:16] += 1500
            write_image(folder / "export" / f"{name}.dcm", pixels, patient=patient, name=name)
            table.writerow((patient, ("clear", "nodule")[number % 2]))
            planted += [name, name.partition("^")[0], patient]
    return planted


def study_of(
    name: str,
    *,
    sites: Sequence[str] = SITES,
    rounds: int = 1,
    epochs: int = 1,
    quorum: int = 2,
    grace_s: float = 60,
    deadline_s: float = 120,
    waiting_s: float = 60,
    local_models: bool = False,
    modality: Sequence[str] = ("CR",),
    seed: int = 3,
    strategy: dict[str, Any] | None = None,
) -> Study:
    """A study with a network of a few thousand weights."""
    facts = {
        "name": name,
        "purpose": "Tests on invented images.",
        "task": {"classes": ["clear", "nodule"]},
        "sites": list(sites),
        "cohort": {"modality": list(modality), "minimum_patients": 2},
        "preprocessing": {"image_size": [SIDE, SIDE]},
        "network": {"name": "ResNet", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8],
                    "conv1_t_size": 3, "normalization": "group"},
        "training": {"rounds": rounds, "local_epochs": epochs, "batch_size": 8, "seed": seed},
        "strategy": strategy or {"name": "FedAvg"},
        "rounds": {"quorum": quorum, "grace_s": grace_s, "deadline_s": deadline_s, "waiting_s": waiting_s,
                   "max_update_mb": 8},
        "split": {"validation": 0.25, "test": 0.25},
        "judgement": {"local_models": local_models},
    }  # fmt: skip
    return Study.model_validate(facts)
