"""A patient withdraws while a real run is going on: agent, server and command are processes of their own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.cohort import select
from fedai_site.traces import files_under
from federation_processes import fedai_command, wait_for
from federation_sites import Federation, Site

from fedai.study import Study

pytestmark = pytest.mark.federation
NAME = "leaving"


@dataclass
class Withdrawn:
    """What was seen: `batches` as (time in ns, hashes of images), `mark` the time of the withdrawal."""

    site: Site
    study: Study
    run: str
    record: dict[str, Any]
    patient: str
    images: set[str]
    contents: list[bytes]
    before: list[Path]
    batches: list[tuple[int, set[str]]]
    mark: int
    told: dict[str, Any]


def command(site: Site, *words: str) -> dict[str, Any]:
    """`fedai site ... --json` as a process."""
    line = [*fedai_command(), "site", *words, "--json"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=120, check=False, env=site.environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def read(batches: Path) -> list[tuple[int, set[str]]]:
    lines = [json.loads(line) for line in batches.read_text().splitlines()]
    return [(line["at"], set(line["images"])) for line in lines]


def holding(folder: Path, contents: list[bytes]) -> list[Path]:
    return [path for path in files_under(folder) if any(one in path.read_bytes() for one in contents)]


@pytest.fixture(scope="module")
def withdrawn(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Withdrawn:
    batches = tmp_path_factory.mktemp("batches") / "batches.jsonl"
    site = federation.add_site(NAME, batches=batches)
    home = site.home.folder
    study = federation.study("withdrawal", sites=(NAME,), quorum=1, rounds=2, epochs=200)
    run = federation.start_run(study)
    wait_for(lambda: site.said(f"{run}: train round 2") == 1, 180, f"round 2\n{federation.told()}")
    drawn = len(read(batches))
    wait_for(lambda: len(read(batches)) > drawn + 6, 60, "batches of round 2")
    patient = select(home, study).splits["train"][0].patient
    arrays = [np.load(path) for path in (home / "cache").rglob("*.npy") if path.parent.name == patient]
    files = [path.read_bytes() for path in (home / "clean" / patient).rglob("*.dcm")]
    contents = [*files, *(array.tobytes() for array in arrays)]
    before = holding(home, contents)
    told = command(site, "consent", "withdraw", str(home), patient)
    mark = (home / "consent.mark").stat().st_mtime_ns
    record = federation.wait_for_run(run)
    images = {sha256(array.tobytes()).hexdigest() for array in arrays}
    return Withdrawn(site, study, run, record, patient, images, contents, before, read(batches), mark, told)


def test_the_next_batch_no_longer_holds_the_patient(withdrawn: Withdrawn) -> None:
    holds = [(at, bool(images & withdrawn.images)) for at, images in withdrawn.batches]
    after = [held for at, held in holds if at > withdrawn.mark]
    assert sum(held for at, held in holds if at < withdrawn.mark) > 200  # once in each epoch until then
    assert len(after) > 200
    assert not any(after[1:])  # the first may have been checked a moment before, and drawn a moment after


def test_the_round_leaves_without_the_patient_and_the_run_ends_well(withdrawn: Withdrawn) -> None:
    first, second = (closed["cases"][NAME] for closed in withdrawn.record["rounds"])
    assert withdrawn.record["state"] == "finished"
    assert second == first - 1
    assert [closed["answered"] for closed in withdrawn.record["rounds"]] == [[NAME]] * 2
    updates = [line for line in withdrawn.site.ledger(withdrawn.run) if line["kind"] == "update"]
    assert [line["metrics"]["cases"] for line in updates] == [first, second]
    assert not [line for line in withdrawn.site.ledger(withdrawn.run) if line["kind"] == "error"]


def test_the_files_are_gone_from_the_disk_whatever_they_are_called(withdrawn: Withdrawn) -> None:
    assert len(withdrawn.contents) == len(withdrawn.before) == 2  # one image: its clean file and its array
    assert holding(withdrawn.site.home.folder, withdrawn.contents) == []
    assert withdrawn.patient not in withdrawn.site.home.log.read_text()


def test_the_receipt_verifies_and_says_what_was_deleted(withdrawn: Withdrawn) -> None:
    (receipt,) = withdrawn.told["receipts"]
    told = command(withdrawn.site, "consent", "verify", receipt["file"])
    assert (told["patient"], told["site"]) == (withdrawn.patient, NAME)
    assert (told["deleted"]["clean_files"], told["deleted"]["cached_arrays"]) == (1, 1)
    assert told["searched"]["files"] > 50
    assert told["searched"]["left"] == 0


def test_the_influence_list_names_the_round_that_used_the_patient_and_no_other(withdrawn: Withdrawn) -> None:
    told = command(withdrawn.site, "consent", "influence", str(withdrawn.site.home.folder), withdrawn.patient)
    uses = [(use["run"], use["task"], use["round"], use["came"]) for use in told["uses"]]
    assert uses == [(withdrawn.run, "train", 1, "answered"), (withdrawn.run, "train", 2, "discarded")]
    assert {use["study"] for use in told["uses"]} == {withdrawn.study.sha256}
    assert "not unlearned" in told["models"]


def test_a_new_export_leaves_the_patient_out(withdrawn: Withdrawn, federation: Federation) -> None:
    site, export = withdrawn.site, federation.folder / "hospitals" / NAME / "export"
    added = command(site, "add-data", str(site.home.folder), str(export), "--no-pixels")
    assert added["quarantined"] == {"WITHDRAWN": 1}
    assert holding(site.home.folder, withdrawn.contents) == []
    cohort = select(site.home.folder, withdrawn.study)
    assert cohort.excluded == {"withdrawn": 1}
    assert withdrawn.patient not in {case.patient for cases in cohort.splits.values() for case in cases}
