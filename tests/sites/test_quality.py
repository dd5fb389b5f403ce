from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import radiograph, save
from fedai_server.pki import make_authority
from fedai_site.adding import add_data
from fedai_site.catalogue import Catalogue, LabelledObject
from fedai_site.quality import Finding, findings
from fedai_site.traits import CONSTANT, UNKNOWN, Traits, look_of

from fedai.cli.app import run

GRADIENT = np.add.outer(np.arange(40.0), np.arange(40.0) ** 1.2)


def entry(number: int, label: str | None = "clear", **traits: Any) -> LabelledObject:
    noise = np.random.default_rng(number).normal(scale=8, size=(40, 40))
    known = {"looks": look_of((GRADIENT + noise).astype(np.float32)), "image": f"{number:032x}"} | traits
    return LabelledObject(
        f"2.25.{number}", f"p{number}", "CR", "", "", "{}", label, 0, 0, replace(UNKNOWN, **known)
    )


def kinds(found: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {one.kind: one.objects for one in found}


def test_ordinary_images_give_no_findings() -> None:
    assert findings([entry(number, spacing_mm=0.1 + number % 3 / 100) for number in range(60)]) == []


def test_a_negative_among_images_of_its_kind_is_found() -> None:
    entries = [entry(number) for number in range(40)]
    negative = look_of(-GRADIENT.astype(np.float32))
    found = findings([*entries, entry(99, looks=negative)])
    assert kinds(found) == {"NEGATIVE": ("2.25.99",)}


def test_a_spacing_far_from_the_usual_is_found() -> None:
    entries = [entry(number, spacing_mm=0.14) for number in range(40)]
    found = findings([*entries, entry(98, spacing_mm=0.2), entry(99, spacing_mm=1.4)])
    assert kinds(found) == {"SPACING": ("2.25.99",)}


def test_a_copy_under_another_patient_is_found_by_its_looks_and_one_of_the_same_patient_is_none() -> None:
    entries = [entry(number) for number in range(10)]
    copy = bytearray.fromhex(entries[3].traits.looks)
    copy[0] ^= 0b101
    changed = {"looks": copy.hex(), "image": "ff"}
    found = findings([*entries, entry(50, **changed)])
    assert kinds(found) == {"LOOKS_ALIKE": ("2.25.3", "2.25.50")}
    assert findings([*entries, replace(entry(50, **changed), patient="p3")]) == []


def test_a_rare_label_is_found_among_those_of_the_study() -> None:
    entries = [entry(number, label="nodule" if number == 0 else "clear") for number in range(40)]
    assert [one.text for one in findings(entries)] == ["'nodule' has 1 of 40 labelled patients"]
    found = findings(entries, ("clear", "mass"))
    assert [one.text for one in found if one.kind == "IMBALANCE"] == ["'mass' has 0 of 39 labelled patients"]


def test_labels_that_a_study_does_not_know_are_found_with_the_class_that_is_meant() -> None:
    entries = [entry(number, label="clear" if number % 2 else "Nodule") for number in range(40)]
    (found,) = [one for one in findings(entries, ("clear", "nodule")) if one.kind == "LABEL_NOT_IN_STUDY"]
    assert found.text == "'Nodule', the label of 20 images, is no class of the study: did you mean nodule?"
    assert found.objects == tuple(f"2.25.{number}" for number in range(0, 40, 2))
    assert "LABEL_NOT_IN_STUDY" not in kinds(findings(entries))
    (other,) = [one for one in findings(entries, ("clear", "mass")) if one.kind == "LABEL_NOT_IN_STUDY"]
    assert other.text.endswith("it has clear, mass")


def test_images_that_came_in_before_these_checks_are_told() -> None:
    (found,) = findings([replace(entry(1), traits=Traits()), entry(2)])
    assert found.kind == "NOT_READ"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    home = folder / "home"
    (folder / "ca").mkdir()
    ca = make_authority(folder / "ca").certificate
    words = ["site", "init", str(home), "--name", "north", "--server", "127.0.0.1:9000", "--ca", str(ca)]
    assert run(words) == 0
    shared = radiograph(77, rows=64, columns=64).PixelData
    for number in range(12):
        more: dict[str, Any] = {
            "BodyPartExamined": "CHEST",
            "Manufacturer": "GE",
            "PatientAge": f"0{30 + number}Y",
        }
        if number in (3, 4):
            more["PixelData"] = shared
        if number == 5:
            more["PixelData"] = bytes(64 * 64 * 2)
        save(radiograph(number, f"P{number}", rows=64, columns=64, **more), folder / "in" / f"{number}.dcm")
    table = folder / "labels.csv"
    table.write_text("PatientID,label\n" + "".join(f"P{number},clear\n" for number in range(12)))
    add_data(home, folder / "in", table)
    return home


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(["site", "data", *words, "--json"]) == (words[0] == "check")  # 1: something was found
    return json.loads(capsys.readouterr().out)


def test_check_names_the_same_pixels_under_two_patients_and_blank_images(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {one["kind"]: one for one in told(capsys, "check", str(home))["findings"]}
    assert found.keys() == {"SAME_IMAGE", "CONSTANT"}
    assert len(found["SAME_IMAGE"]["objects"]) == 2
    assert len(found["CONSTANT"]["objects"]) == 1


def test_list_show_and_stats_tell_what_there_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = told(capsys, "list", str(home), "--limit", "5")
    assert (listed["number"], len(listed["patients"])) == (12, 5)
    one = listed["patients"][0]
    assert (one["images"], one["modality"], one["label"]) == (1, ["CR"], ["clear"])
    shown = told(capsys, "show", str(home), one["patient"])
    assert shown["images"][0]["manufacturer"] == "GE"
    assert told(capsys, "show", str(home), shown["images"][0]["id"])["patient"] == one["patient"]
    images = told(capsys, "stats", str(home))["images"]
    assert images["age_years"] == {"30 to 39": 10, "40 to 49": 2}
    assert images["body_part"] == {"CHEST": 12}


def test_a_patient_that_is_not_there_is_an_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "data", "show", str(home), "nobody", "--json"]) != 0
    assert json.loads(capsys.readouterr().out)["error"]["hint"]


def test_no_view_shows_an_identifier_of_the_archive(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        patient = catalogue.labelled()[0].patient
    for words in (["list"], ["stats"], ["check"], ["show", patient]):
        assert run(["site", "data", words[0], str(home), *words[1:]]) == (words[0] == "check")
        shown = capsys.readouterr().out
        assert shown
        assert not any(name in shown for name in ("Hong", "19551231", "P0 ", "P11"))


def test_copies_of_one_image_are_one_group() -> None:
    looks = entry(1).traits.looks
    entries = [entry(number, looks=looks) for number in range(30)]
    (found,) = [one for one in findings(entries) if one.kind == "LOOKS_ALIKE"]
    assert len(found.objects) == 30
    assert "30 images of 30 patients" in found.text


@pytest.mark.parametrize("looks", ["", CONSTANT])
def test_a_home_without_an_image_to_compare_is_checked_all_the_same(looks: str) -> None:
    assert findings([]) == []
    (found,) = findings([entry(1, looks=looks)])
    assert found.kind == ("CONSTANT" if looks else "NOT_READ")
