"""An archive's images come in while processes are killed: each is in once in the end, and nothing is lost.

A real Orthanc on loopback, real `fedai site` processes, SIGKILL. The long versions (500 objects, ten kills
each) are marked `faults`: `make faults`; with `-s` they print what they did.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from fedai_site import inbox
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.deidentify.state import State
from federation_processes import fedai_command, wait_for
from orthanc_archive import Orthanc, missing, orthanc

pytestmark = [pytest.mark.federation, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
AT_ONCE = 10  # images that the archive pushes in one association
SIZES = [
    pytest.param(40, 2, id="40 objects, 2 kills"),
    pytest.param(500, 10, id="500 objects, 10 kills", marks=pytest.mark.faults),
]


def make_home(folder: Path, archive: Orthanc) -> Path:
    (folder / "keys").mkdir(parents=True)
    create_secret(folder / "keys" / "pseudonym.key")
    settings = {
        "name": "north",
        "server": {"address": "127.0.0.1:1", "ca": "ca.pem"},
        "receiver": {"address": f"127.0.0.1:{archive.receiver_port}", "callers": ["PACS"]},
        "dicomweb": {"pacs": {"url": archive.dicomweb}},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(settings))
    return folder


def clean_files(home: Path) -> set[Path]:
    return set((home / "clean").rglob("*.dcm"))


def command(home: Path, *words: str) -> list[str]:
    return [*fedai_command(), "site", words[0], str(home), *words[1:]]


def child_of(pid: int) -> int | None:
    """The process that fetches for another one, while there is one."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"fedai_site.dicomweb" in (path / "cmdline").read_bytes():
                return int(path.name)
        except OSError:
            continue
    return None


@dataclass
class Killing:
    """Kills processes at random points, given by how many objects have come as far as that."""

    progress: Callable[[], int]
    thresholds: list[int]
    luck: random.Random
    killed: list[tuple[str, int]] = field(default_factory=list)

    def is_due(self) -> bool:
        return (
            len(self.killed) < len(self.thresholds) and self.progress() >= self.thresholds[len(self.killed)]
        )

    def kill(self, name: str, pid: int) -> None:
        time.sleep(self.luck.uniform(0, 0.05))
        self.killed.append((name, self.progress()))
        os.kill(pid, signal.SIGKILL)


def check(home: Path, uids: list[str]) -> None:
    """Every object exactly once; the catalogue, the private state and the files say the same."""
    names = Pseudonyms(load_secret(home / "keys" / "pseudonym.key"))
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        entries = catalogue.labelled()
        records = [catalogue.record(entry.id) for entry in entries]
    keys = Counter(record.object_key for record in records if record)
    assert keys == Counter(names.label_key("SOPInstanceUID", uid) for uid in uids)
    assert {home / entry.path for entry in entries} == clean_files(home)
    with State(home / "deid") as state:
        assert {home / "clean" / written.path for written in state.objects()} == clean_files(home)
        assert state.quarantined() == []
    evidence = (home / "clean" / "evidence.jsonl").read_text().splitlines()
    assert len(evidence) == len(uids)
    assert list(inbox.waiting(home / "inbox")) == []
    assert list((home / "inbox" / inbox.PARTS).iterdir()) == []
    assert not (home / "clean" / ".parts").exists()


def finished(home: Path, *words: str) -> str:
    done = subprocess.run(
        command(home, "add-data", *words, "--no-pixels"),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(("number", "kills"), SIZES)
def test_fetched_by_dicomweb_each_object_is_in_once_whatever_is_killed(
    archive: Orthanc, tmp_path: Path, number: int, kills: int
) -> None:
    """Killed is the process that cleans, or the one that fetches; the command is given again each time."""
    luck = random.Random(number)
    uids = archive.fill(tmp_path / "images", number)
    home = make_home(tmp_path / "home", archive)
    killing = Killing(lambda: len(clean_files(home)), sorted(luck.sample(range(number), kills)), luck)
    begun = time.monotonic()
    starts = 0
    while len(killing.killed) < kills:
        starts += 1
        with (tmp_path / "said").open("ab") as said:
            process = subprocess.Popen(
                command(home, "add-data", "--dicomweb", "pacs", "--no-pixels"), stdout=said, stderr=said
            )
            while process.poll() is None and not killing.is_due():
                time.sleep(0.005)
            if process.poll() is None:
                fetcher = child_of(process.pid) if luck.random() < 0.4 else None
                killing.kill("fetching" if fetcher else "cleaning", fetcher or process.pid)
            process.wait(timeout=600)
        assert starts <= 3 * kills, (tmp_path / "said").read_text()
    told = finished(home, "--dicomweb", "pacs")
    check(home, uids)
    report("DICOMweb", number, killing, starts + 1, time.monotonic() - begun)
    assert "de-identified" in told


@pytest.mark.parametrize(("number", "kills"), SIZES)
def test_pushed_by_c_store_nothing_that_was_acknowledged_is_lost_whatever_is_killed(
    archive: Orthanc, tmp_path: Path, number: int, kills: int
) -> None:
    """Killed is the receiver, or what cleans; the archive sends again only what wasn't acknowledged."""
    luck = random.Random(number + 1)
    uids = archive.fill(tmp_path / "images", number)
    home = make_home(tmp_path / "home", archive)
    inbox.open_inbox(home)
    pushing = Pushing(archive)
    killing = Killing(lambda: pushing.acknowledged, sorted(luck.sample(range(number), kills)), luck)
    begun = time.monotonic()
    site = Site(home, tmp_path / "said")
    try:
        site.start("receive")
        pushing.start()
        site.start("add-data", "--inbox", "--every", "0.2", "--no-pixels")
        while not pushing.is_over() or len(killing.killed) < kills:
            site.start_again()
            if killing.is_due():
                name = luck.choice(("receive", "add-data"))
                killing.kill(name, site.running[name].pid)
                site.running[name].wait(timeout=60)
            time.sleep(0.005)
    finally:
        pushing.stop.set()
        site.end()
    assert pushing.acknowledged == number
    finished(home, "--inbox")
    (leftover,) = [path for path in (home / "inbox").iterdir() if path.name == inbox.PARTS]
    for part in leftover.glob("tmp*"):
        part.unlink()  # what the receiver was killed at; the next one deletes it
    check(home, uids)
    report(
        "C-STORE", number, killing, site.starts, time.monotonic() - begun, f"{pushing.refused} pushes again"
    )


class Pushing(threading.Thread):
    """The archive's queue: each batch again until it is acknowledged, and never again after that."""

    def __init__(self, archive: Orthanc) -> None:
        super().__init__(daemon=True)
        self.archive, self.stop = archive, threading.Event()
        self.acknowledged = self.refused = 0

    def run(self) -> None:
        instances = self.archive.call("/instances")
        for start in range(0, len(instances), AT_ONCE):
            batch = instances[start : start + AT_ONCE]
            while not self.stop.is_set() and not self.archive.push(batch):
                self.refused += 1
                time.sleep(0.3)
            self.acknowledged += len(batch)

    def is_over(self) -> bool:
        return not self.is_alive()


class Site:
    """Processes of a site, started again when they have ended."""

    def __init__(self, home: Path, said: Path) -> None:
        self.home, self.said = home, said
        self.words: dict[str, tuple[str, ...]] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.starts = 0

    def start(self, *words: str) -> None:
        self.words[words[0]] = words
        with self.said.open("ab") as said:
            self.running[words[0]] = subprocess.Popen(command(self.home, *words), stdout=said, stderr=said)
        self.starts += 1
        if words[0] == "receive":
            heard = self.said.read_text().count("listening")
            wait_for(lambda: self.said.read_text().count("listening") >= max(1, heard), 60, "the receiver")

    def start_again(self) -> None:
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                assert process.returncode == -signal.SIGKILL, self.said.read_text()
                self.start(*self.words[name])

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(timeout=60)


def report(way: str, number: int, killing: Killing, starts: int, seconds: float, more: str = "") -> None:
    points = ", ".join(f"{name} at {at}" for name, at in killing.killed)
    print(
        f"\n{way}: {number} objects, {len(killing.killed)} kills ({points}),\n"
        f"{starts} starts, {seconds:.0f} s; in the catalogue exactly once: {number}, lost: 0 {more}",
        file=sys.stderr,
    )
