from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rocrate.rocrate import ROCrate
from run_folders import write_run
from runs import draw_judgement, draw_record
from studies import small_study

from fedai.cli.app import run as fedai

Capture = pytest.CaptureFixture[str]
MADE = {"study.json", "report.html", "numbers.csv", "model-card.md", "model-card.json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run's folder, with what a running one leaves there too."""
    study = small_study()
    folder = write_run(tmp_path / "registry" / "small-1", study)
    drawn = draw_record()
    versions = dict.fromkeys(drawn["cohorts"], drawn["versions"])
    record = {**drawn, "run": "small-1", "study": json.loads(study.canonical()), "versions": versions}
    (folder / "record.json").write_text(json.dumps({**record, "study_hash": study.sha256}))
    (folder / "judgement.json").write_text(json.dumps(draw_judgement().to_json()))
    (folder / "conductor").write_text("7")
    (folder / "round-0002" / "strategy.safetensors").write_bytes(b"what a strategy remembers")
    return folder


def crate_of(folder: Path, out: Path, *words: str) -> dict[str, dict[str, Any]]:
    """Write the crate; entities by @id."""
    assert fedai(["run", "crate", str(folder), "--out", str(out), *words]) == 0
    with zipfile.ZipFile(out) as crate:
        graph = json.loads(crate.read("ro-crate-metadata.json"))["@graph"]
    return {entity["@id"]: entity for entity in graph}


def files_in(out: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(out) as crate:
        return {name: crate.read(name) for name in crate.namelist()}


@pytest.mark.parametrize("words", [(), ("--weights",)])
def test_the_crates_files_are_those_of_the_run_and_its_hashes_are_theirs(
    words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    entities, files = crate_of(folder, tmp_path / "c.zip", *words), files_in(tmp_path / "c.zip")
    del files["ro-crate-metadata.json"]
    told = {name: entity for name, entity in entities.items() if entity["@type"] == "File"}
    assert set(told) == set(files)
    assert {part["@id"] for part in entities["./"]["hasPart"]} == set(files)
    for name, content in files.items():
        assert told[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert int(told[name]["contentSize"]) == len(content)
    kept = {name: content for name, content in files.items() if name not in MADE}
    assert kept == {name: (folder / name).read_bytes() for name in kept}
    own = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    left = {"conductor", "round-0002/strategy.safetensors"}
    left |= set() if words else {name for name in own if name.endswith(".safetensors")}
    assert set(kept) == own - left


def test_the_study_in_a_crate_has_the_hash_that_sites_approved(folder: Path, tmp_path: Path) -> None:
    entities = crate_of(folder, tmp_path / "c.zip")
    assert entities["study.json"]["sha256"] == small_study().sha256
    assert small_study().sha256 in entities["./"]["identifier"]


def test_the_run_is_told_as_an_action_of_its_sites_with_their_software(folder: Path, tmp_path: Path) -> None:
    entities = crate_of(folder, tmp_path / "c.zip")
    action = entities["#small-1"]
    assert action["@type"] == "CreateAction"
    assert (action["startTime"], action["endTime"]) == (
        "2026-03-04T09:15:00+00:00",
        "2026-03-04T09:21:52+00:00",
    )
    assert [agent["@id"] for agent in action["agent"]] == ["#site-east", "#site-north", "#site-south"]
    assert entities[action["instrument"][0]["@id"]]["softwareVersion"] == "0.1.0"
    assert entities["#torch-2.13.0"]["@type"] == "SoftwareApplication"
    assert action["object"] == [{"@id": "study.json"}]
    assert action["actionStatus"] == {"@id": "http://schema.org/CompletedActionStatus"}
    links = [one["@id"] for key in ("agent", "instrument", "object", "result") for one in action[key]]
    assert set(links) <= set(entities)


def test_a_run_that_failed_says_so_and_has_no_report(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "record.json").read_text())
    failed = {**record, "state": "failed", "reason": "round 1 closed with 1 of 2 answers"}
    (folder / "record.json").write_text(json.dumps(failed))
    (folder / "judgement.json").unlink()
    entities = crate_of(folder, tmp_path / "c.zip")
    assert "report.html" not in entities
    assert entities["#small-1"]["actionStatus"] == {"@id": "http://schema.org/FailedActionStatus"}
    assert entities["#small-1"]["error"] == "round 1 closed with 1 of 2 answers"


def test_the_reader_of_ro_crates_understands_it(folder: Path, tmp_path: Path) -> None:
    entities = crate_of(folder, tmp_path / "c.zip", "--weights")
    read = ROCrate(tmp_path / "c.zip")
    assert read.version == "1.1"
    assert {entity.id for entity in read.data_entities} == {
        name for name, entity in entities.items() if entity["@type"] == "File"
    }
    (action,) = read.get_by_type("CreateAction")
    assert action["instrument"][0].type == "SoftwareApplication"
    assert {one.id for one in action["result"]} < {entity.id for entity in read.data_entities}
    for needed in ("name", "description", "datePublished", "license"):
        assert read.root_dataset[needed]


def test_a_folder_that_is_no_runs_is_refused_and_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert fedai(["run", "crate", "nothing", "--out", str(tmp_path / "c.zip")]) == 2
    assert "no ended run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_written_over_only_by_force(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "c.zip"
    out.write_text("mine")
    assert fedai(["run", "crate", str(folder), "--out", str(out)]) == 2
    assert "c.zip is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    crate_of(folder, out, "--force")
