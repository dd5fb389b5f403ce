"""The demo: everything a consortium does, by the same commands, with real processes on loopback.

Three invented hospitals are written as DICOM; a server and three agents are started; sites are admitted,
approve the study, train, and are judged. The demo owns all the data, so it may also train the centralised
reference. Then it looks for every planted identifier in every byte that left the sites.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fedai.compare import compare
from fedai.demo.hospital import Planted, write_hospital
from fedai.demo.leaks import Search
from fedai.errors import ConfigError, FederationError, OutOfTime
from fedai.record import read_judgement, read_record
from fedai.report import render
from fedai.results import Comparison
from fedai.study import read_study

READY_S = 120.0
STOP_S = 20.0
CONTROL_FILES, CONTROL_BYTES = 10, 65_536
Tell = Callable[[str], None]


@dataclass
class Federation:
    """One demo in a folder of its own; `processes` are those that must end with it.

    `interrupted` outlives an interrupt that was lost on its way (Python drops exceptions in finalizers).
    """

    folder: Path
    patients: int
    seed: int
    say: Tell
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    interrupted: bool = False
    ending: bool = False

    def __post_init__(self) -> None:
        self.study = self.folder / "study.yaml"
        self.server = self.folder / "server"
        self.record = self.folder / "received"
        self.logs = self.folder / "logs"

    def go_on(self) -> None:
        """Raises KeyboardInterrupt where one came and was lost."""
        if self.interrupted:
            raise KeyboardInterrupt

    def tell(self, text: str) -> None:
        self.go_on()
        self.say(text)

    def home(self, site: str) -> Path:
        return self.folder / "sites" / site


def run_demo(out: Path, *, patients: int, seed: int, keep: bool, tell: Tell) -> dict[str, Any]:
    """The whole demo; gives what `fedai demo --json` prints. Raises FedaiError."""
    started = time.monotonic()
    demo = _prepare(out, patients, seed, tell)
    sites = read_study(demo.study).sites
    with _ending_processes(demo, keep=keep):
        planted = _write_hospitals(demo, sites)
        _start_server(demo)
        _set_up_sites(demo, sites, planted)
        _start_agents(demo, sites)
        centralised = _train_centralised(demo, sites)
        run = _run_study(demo, centralised)
    # with --keep the processes are still there here; what follows only reads
    folder = demo.server / "registry" / run
    record, judgement = read_record(folder), read_judgement(folder)
    comparison = compare(judgement)
    report = demo.folder / "report.html"
    report.write_text(render(record, comparison, judgement), encoding="utf-8")
    leaks = _count_leaks(demo, planted)
    return _result(demo, record, comparison, report, leaks, time.monotonic() - started)


def write_only(out: Path, *, patients: int, seed: int, tell: Tell) -> dict[str, Any]:
    """Only the hospitals and the study, for trying the commands by hand. Raises ConfigError."""
    demo = _prepare(out, patients, seed, tell)
    planted = _write_hospitals(demo, read_study(demo.study).sites)
    hospitals = {
        site: {"images": str(facts.images), "labels": str(facts.labels), "files": facts.files}
        for site, facts in planted.items()
    }
    return {"study": str(demo.study), "hospitals": hospitals}


def _prepare(out: Path, patients: int, seed: int, tell: Tell) -> Federation:
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", hint="give another folder with --out, or remove this one")
    demo = Federation(out.absolute(), patients, seed, tell)
    demo.logs.mkdir(parents=True, exist_ok=True)
    with as_file(files("fedai.demo") / "study.yaml") as study:
        demo.study.write_bytes(study.read_bytes())
    return demo


def _write_hospitals(demo: Federation, sites: Sequence[str]) -> dict[str, Planted]:
    planted = {}
    for number, site in enumerate(sites):
        folder = demo.folder / "hospitals" / site
        planted[site] = write_hospital(folder, site, patients=demo.patients, seed=demo.seed + number)
        identifiers = len(planted[site].identifiers)
        demo.tell(f"hospital {site}: {planted[site].files} DICOM files, {identifiers} planted identifiers")
    return planted


def _start_server(demo: Federation) -> None:
    public, loopback = _free_ports(2)
    _fedai("server", "init", demo.server, "--public", f"127.0.0.1:{public}", "--loopback-port", loopback)
    _spawn(demo, "server", "server", "start", demo.server, "--record", demo.record)
    _wait(demo, lambda: "ready " in _log(demo, "server"), "the server")
    demo.tell(f"server: TLS on 127.0.0.1:{public}")


def _set_up_sites(demo: Federation, sites: Sequence[str], planted: dict[str, Planted]) -> None:
    """`site init` for each, `site add-data` for two at a time, `site approve`, `server admit`."""
    address = json.loads(_fedai("server", "status", demo.server, "--json"))["address"]
    waiting = []
    for site in sites:
        config = demo.folder / f"{site}.yaml"
        config.write_text(
            f"name: {site}\nserver: {{address: '{address}', ca: server/kit/ca.pem}}\nthreads: 1\n",
            encoding="utf-8",
        )
        key = _write_pseudonym_key(demo, site)
        _fedai("site", "init", demo.home(site), "--config", config, "--pseudonym-key", key)
        adding = (
            "site",
            "add-data",
            demo.home(site),
            planted[site].images,
            "--labels",
            planted[site].labels,
            "--no-pixels",  # half a second for each image
            "--json",
        )
        waiting.append((site, _popen(*adding)))
    for site, process in waiting:
        added = json.loads(_finished(process, f"site add-data for {site}"))
        quarantined = sum(added["quarantined"].values())
        cleaned = f"{added['written']} of {added['found']} files de-identified"
        demo.tell(f"site {site}: {cleaned}, {quarantined} quarantined")
        _fedai("site", "approve", demo.home(site), demo.study, "--by", f"engineer of {site}")
        _fedai("server", "admit", demo.server, site, demo.home(site) / "keys" / "agent.pub")


def _write_pseudonym_key(demo: Federation, site: str) -> Path:
    """From the seed, so that the same seed gives the same pseudonyms, splits and models: its patients are
    invented, and nobody has to be protected.
    """
    path = demo.folder / f"{site}.pseudonym.key"
    path.touch(mode=0o600)
    path.write_bytes(hashlib.sha256(f"fedai demo {demo.seed} {site}".encode()).digest())
    return path


def _start_agents(demo: Federation, sites: Sequence[str]) -> None:
    for site in sites:
        _spawn(demo, f"site-{site}", "site", "start", demo.home(site))
    for site in sites:
        _wait(demo, partial(_is_connected, demo, site), f"the agent of {site}")
    demo.tell(f"agents: {', '.join(sites)} are connected")


def _is_connected(demo: Federation, site: str) -> bool:
    return "connected" in _log(demo, f"site-{site}")


def _train_centralised(demo: Federation, sites: Sequence[str]) -> Path:
    homes = [part for site in sites for part in ("--home", demo.home(site))]
    out = demo.folder / "centralised"
    made = json.loads(_fedai("site", "train", demo.study, *homes, "--out", out, "--json"))
    demo.tell(f"centralised reference: trained on {made['cases']} cases of all sites")
    return Path(made["checkpoint"])


def _run_study(demo: Federation, centralised: Path) -> str:
    reference = f"centralised={centralised}"
    run: str = json.loads(
        _fedai("run", "start", demo.study, "--home", demo.server, "--reference", reference, "--json")
    )["run"]
    watching = _popen("run", "watch", run, "--home", demo.server, stderr=subprocess.PIPE)
    if watching.stderr is not None:
        for line in watching.stderr:
            demo.tell(line.decode().rstrip())
    watching.wait()
    if watching.returncode:
        reason = read_record(demo.server / "registry" / run)["reason"]
        raise FederationError(
            f"the run {run} didn't finish: {reason}", hint=f"see {demo.logs} and each site's site.log"
        )
    return run


def _count_leaks(demo: Federation, planted: dict[str, Planted]) -> int:
    """Identifiers in what left the sites: bytes as received, the SuperLink's database and objects, all there.

    Raises FederationError where the same search doesn't find them in the hospitals' own files: then a 0 says
    nothing.
    """
    search = Search.of([text for site in planted.values() for text in site.identifiers])
    for site, facts in planted.items():
        own = sorted(path for path in facts.images.rglob("*") if path.is_file())[:CONTROL_FILES]
        if not any(search.in_file(path, CONTROL_BYTES) for path in own):
            raise FederationError(
                f"the leak search is blind: it finds nothing in the files of {site} themselves"
            )
    received = [path for folder in (demo.record, demo.server) for path in folder.rglob("*") if path.is_file()]
    if not any(path.is_relative_to(demo.record) and path.stat().st_size for path in received):
        raise FederationError("nothing was recorded as received, so there is nothing to search")
    found = search.in_files(received)
    size = sum(path.stat().st_size for path in received)
    demo.tell(
        f"leak search: {len(found)} hits in {size / 1e6:.0f} MB that left the sites ({len(received)} files)"
    )
    return len(found)


def _result(
    demo: Federation, record: dict[str, Any], comparison: Comparison, report: Path, leaks: int, seconds: float
) -> dict[str, Any]:
    told = comparison.to_json()
    sites = sorted(record["cohorts"])
    return {
        "run": record["run"],
        "study_hash": record["study_hash"],
        "sites": sites,
        "rounds": len(record["rounds"]),
        "seconds": round(seconds, 1),
        "models": {name: told[name] for name in ("local", "federated", "centralised")},
        "differences": told["differences"],
        "report": str(report),
        "ledgers": {site: str(demo.home(site) / "ledger.jsonl") for site in sites},
        "leaks": leaks,
        "logs": {
            "server": str(demo.server / "logs"),
            **{site: str(demo.home(site) / "site.log") for site in sites},
        },
        "server_home": str(demo.server),
        "processes": {name: process.pid for name, process in demo.processes.items()},
    }


def _free_ports(count: int) -> list[int]:
    """Free ports of this machine, held open together so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def _command(words: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "fedai.cli", *map(str, words)]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _popen(*words: object, stderr: int | None = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(words), stdout=subprocess.PIPE, stderr=stderr, env=_environment())


def _finished(process: subprocess.Popen[bytes], what: str) -> str:
    out, err = process.communicate()
    if process.returncode:
        said = (err or out or b"").decode(errors="replace").strip()[-2000:]
        raise FederationError(
            f"{what} ended with {process.returncode}: {said or out.decode(errors='replace')}"
        )
    return out.decode()


def _fedai(*words: object) -> str:
    """Run one fedai command to its end and give what it printed. Raises FederationError where it failed."""
    return _finished(_popen(*words), f"fedai {words[0]} {words[1]}")


def _spawn(demo: Federation, name: str, *words: object) -> None:
    """Start a process that stays; its output goes to a log of its own."""
    with (demo.logs / f"{name}.log").open("wb") as log:
        demo.processes[name] = subprocess.Popen(
            _command(words),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )


def _log(demo: Federation, name: str) -> str:
    return (demo.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def _wait(demo: Federation, is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + READY_S
    while not is_so():
        demo.go_on()
        ended = [name for name, process in demo.processes.items() if process.poll() is not None]
        if ended:
            raise FederationError(
                f"{ended[0]} ended early: {_log(demo, ended[0]).strip()[-2000:]}", hint=f"see {demo.logs}"
            )
        if time.monotonic() > until:
            raise OutOfTime(f"{what} was not ready after {READY_S:.0f} s", hint=f"see {demo.logs}")
        time.sleep(0.1)


@contextmanager
def _ending_processes(demo: Federation, *, keep: bool) -> Iterator[None]:
    """End what was started, agents first; with `keep` only where the demo didn't come to its end."""

    def interrupt(*_: object) -> None:
        demo.interrupted = True
        if not demo.ending:  # who asks twice doesn't cut the ending short
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
        demo.go_on()
    except BaseException:
        _end(demo)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not keep:
        _end(demo)


def _end(demo: Federation) -> None:
    demo.ending = True
    for process in reversed(demo.processes.values()):
        process.terminate()
    for process in demo.processes.values():
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    demo.processes.clear()
