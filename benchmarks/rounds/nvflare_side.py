"""The rounds of NVFLARE, by its own log: in its simulator, and in POC mode as it provisions it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import yaml

from benchmarks.processes import Processes, call, free_ports, processes
from benchmarks.round_overhead.figures import Round
from fedai.errors import FederationError

REQUIREMENT = "nvflare==2.9.0"
APP = Path(__file__).parent / "nvflare_app"
WORK = Path(__file__).parents[1] / "round_overhead" / "flower_app"
ADMIN, SERVER, PROJECT = "admin@nvidia.com", "server", "rounds"
BOUNDARY = re.compile(
    r"^(\d\S+ \S+) - FedAvg - .*\n[-=]*\n *(?:Round \d+ started|Finished FedAvg)", re.MULTILINE
)


@dataclass(frozen=True)
class Nvflare:
    """NVFLARE's Python, the sites and the folder of their arrays (SITE.npz)."""

    python: Path
    sites: tuple[str, ...]
    data: Path

    def words(self, how: str, folder: Path, rounds: int) -> list[object]:
        """The command line of nvflare_app/job.py."""
        return [
            self.python, APP / "job.py", how, "--folder", folder, "--app", WORK, "--data", self.data,
            "--rounds", rounds, "--sites", ",".join(self.sites),
        ]  # fmt: skip

    def environment(self, folder: Path) -> dict[str, str]:
        """A home of its own, so that nothing of the user's is read or changed; its own tools on the PATH."""
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        home = {"HOME": str(folder), "NVFLARE_POC_WORKSPACE": str(folder / "poc")}
        return {**home, "PATH": path, "NO_PROXY": "127.0.0.1,localhost"}


def simulate(nvflare: Nvflare, folder: Path, rounds: int) -> list[Round]:
    """Run FedAvg in NVFLARE's simulator, a thread and a process for each site, no TLS."""
    folder.mkdir(parents=True)
    call(nvflare.words("simulate", folder, rounds), nvflare.environment(folder))
    (log,) = (folder / "simulator").glob("*/server/log.txt")
    return read_rounds(log.read_text(encoding="utf-8"), folder / "times", nvflare.sites)


def deploy(nvflare: Nvflare, folder: Path, rounds: int) -> list[Round]:
    """Provision, start server and sites as NVFLARE's own scripts do, run FedAvg, take everything down."""
    folder.mkdir(parents=True)
    kits = _provision(nvflare, folder)
    told = nvflare.environment(folder)
    with processes(folder / "logs") as running, _nothing_left(running):
        _start(running, kits / SERVER, told, "Server started")
        for site in nvflare.sites:
            _start(running, kits / site, told, "Successfully registered client")
        call([*nvflare.words("submit", folder, rounds), "--admin", kits / ADMIN], told)
        log = running.log(SERVER).read_text(encoding="utf-8")
    return read_rounds(log, folder / "times", nvflare.sites)


def _provision(nvflare: Nvflare, folder: Path) -> Path:
    """`nvflare poc prepare`; gives the folder of the startup kits."""
    ports = dict(zip(("fed_learn_port", "admin_port"), free_ports(2), strict=True))
    server = {"name": SERVER, "type": "server", "org": "bench", **ports}
    sites = [{"name": site, "type": "client", "org": "bench"} for site in nvflare.sites]
    user = {"name": ADMIN, "type": "admin", "org": "bench", "role": "project_admin"}
    impl = "nvflare.lighter.impl"
    files = {"template_file": ["master_template.yml"]}
    project = {
        "api_version": 3, "name": PROJECT, "description": "three sites",
        "participants": [server, *sites, user],
        "builders": [
            {"path": f"{impl}.workspace.WorkspaceBuilder", "args": files},
            {"path": f"{impl}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": f"{impl}.cert.CertBuilder"},
            {"path": f"{impl}.signature.SignatureBuilder"},
        ],
    }  # fmt: skip
    path = folder / "project.yml"
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    tool = nvflare.python.with_name("nvflare")
    call([tool, "poc", "prepare", "-i", path], nvflare.environment(folder))
    return folder / "poc" / PROJECT / "prod_00"


def _start(running: Processes, kit: Path, environment: dict[str, str], said: str) -> None:
    """What the kit's start.sh starts, kept in the foreground to be ended by its id."""
    running.start(kit.name, ["bash", kit / "startup" / "sub_start.sh", "--once"], environment)
    running.wait_for(kit.name, said)


@contextmanager
def _nothing_left(running: Processes) -> Iterator[None]:
    """End, by id, what the started processes have started, also where these left it behind."""
    try:
        yield
    finally:
        started = [process.pid for process in running.running.values()]
        below = {pid: began(pid) for one in started for pid in descendants(one)}
        running.end()
        for pid, when in below.items():
            if when and began(pid) == when:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Ids of a process's children and theirs, as /proc tells them; none where there is no /proc."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for one in threads for child in (one / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def began(pid: int) -> str:
    """When a process began, in clock ticks: with its id that is one process and no other; "": it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def read_rounds(log: str, times: Path, sites: Sequence[str]) -> list[Round]:
    """From one round's start to the next one's, the last to the end; computing as the slowest site wrote it.
    Raises FederationError where a site lacks a round.
    """
    marks = [datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp() for at in BOUNDARY.findall(log)]
    walls = [end - start for start, end in pairwise(marks)]
    lines = [(times / f"{site}.jsonl").read_text(encoding="utf-8").splitlines() for site in sites]
    if any(len(of) != len(walls) for of in lines):
        raise FederationError(
            f"NVFLARE closed {len(walls)} rounds, its sites tell {[len(of) for of in lines]}"
        )
    each = [max(json.loads(line)["seconds"] for line in told) for told in zip(*lines, strict=True)]
    return [Round(wall, seconds) for wall, seconds in zip(walls, each, strict=True)]
