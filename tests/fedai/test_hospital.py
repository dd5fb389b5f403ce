"""Invented hospitals: their files are valid, their labels fit, and everything planted is really there."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from fedai.demo.exposures import CLASSES, HOSPITALS, UNLABELLED, plan_exposures
from fedai.demo.hospital import STRANGERS, Planted, write_hospital, write_image
from fedai.errors import ConfigError

PATIENTS = 8
NAMES = ("north", "east", "south")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Planted]:
    root = tmp_path_factory.mktemp("hospitals")
    return {name: write_hospital(root / name, name, patients=PATIENTS, seed=4, workers=1) for name in NAMES}


def good_files(planted: Planted) -> list[Path]:
    return sorted(planted.images.glob("*/*/*.dcm"))


def datasets(planted: Planted) -> list[Dataset]:
    return [dcmread(path) for path in good_files(planted)]


def labels(planted: Planted) -> tuple[str, dict[str, str]]:
    with planted.labels.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header[0], dict(rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_image_decodes_to_512_by_512_within_its_bits(hospitals: dict[str, Planted], name: str) -> None:
    for dataset in datasets(hospitals[name]):
        assert dataset.pixel_array.shape == (512, 512)
        assert dataset.pixel_array.max() < 2**dataset.BitsStored
        assert dataset.BitsStored == HOSPITALS[name].scanner.bits
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID


@pytest.mark.parametrize("name", NAMES)
def test_file_counts_are_as_stated(hospitals: dict[str, Planted], name: str) -> None:
    planted = hospitals[name]
    assert sum(path.is_file() for path in planted.images.rglob("*")) == planted.files
    assert len(good_files(planted)) == planted.labelled + planted.unlabelled
    assert len({dataset.PatientID for dataset in datasets(planted)}) == PATIENTS + UNLABELLED


@pytest.mark.parametrize("name", NAMES)
def test_label_rows_match_the_files_by_the_hospitals_own_key(
    hospitals: dict[str, Planted], name: str
) -> None:
    keyword, rows = labels(hospitals[name])
    present = Counter(str(dataset.get(keyword)) for dataset in datasets(hospitals[name]))
    assert keyword == HOSPITALS[name].label_key
    assert len(rows.keys() - present.keys()) == STRANGERS
    assert sum(present[key] for key in rows) == hospitals[name].labelled
    assert set(rows.values()) == set(CLASSES)


def test_the_three_hospitals_key_their_labels_differently() -> None:
    keys = {hospital.label_key for hospital in HOSPITALS.values()}
    assert keys == {"PatientID", "AccessionNumber", "SOPInstanceUID"}


@pytest.mark.parametrize(("name", "share"), [("north", 0.5), ("east", 0.35), ("south", 0.25)])
def test_the_share_of_sick_patients_is_the_hospitals_prevalence(name: str, share: float) -> None:
    sick = defaultdict(bool)
    for exposure in plan_exposures(HOSPITALS[name], 100, 1, (1, 3)):
        if exposure.label:
            sick[exposure.person.patient_id] |= exposure.label == "nodule"
    assert len(sick) == 100
    assert share - 0.1 <= sum(sick.values()) / 100 <= share


@pytest.mark.parametrize("name", NAMES)
def test_every_planted_text_occurs_somewhere_and_is_long_enough(
    hospitals: dict[str, Planted], name: str
) -> None:
    planted = hospitals[name]
    charset = "latin-1" if HOSPITALS[name].charset == "ISO_IR 100" else "utf-8"
    paths = [path for path in planted.images.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() + str(path).encode() for path in paths) + planted.labels.read_bytes()
    content += "".join(str(dataset) for dataset in datasets(planted)).encode()  # one syntax is compressed
    for text in planted.identifiers:
        assert len(text) >= 5
        assert text.encode(charset) in content or text.encode() in content, text


def test_names_use_accents_and_hangul(hospitals: dict[str, Planted]) -> None:
    texts = {name: "".join(hospitals[name].identifiers) for name in NAMES}
    assert any("\uac00" <= character <= "\ud7a3" for character in texts["east"])
    assert any("à" <= character <= "ÿ" for character in texts["north"])
    assert any("à" <= character <= "ÿ" for character in texts["south"])
    for dataset in datasets(hospitals["east"]):
        assert str(dataset.PatientName.ideographic)


def test_the_patients_name_is_in_nested_and_private_elements_and_the_preamble(
    hospitals: dict[str, Planted],
) -> None:
    dataset = dcmread(good_files(hospitals["north"])[0])
    family = dataset.PatientName.family_name
    nested = dataset.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert nested.PatientName.family_name == family
    assert family in dataset.private_block(0x0029, "INVENTED PACS 1.0")[0x01].value
    assert family.encode() in dataset.preamble
    assert family in str(dataset.filename)


def test_several_transfer_syntaxes_and_both_photometric_interpretations_occur(
    hospitals: dict[str, Planted],
) -> None:
    found = [dataset for planted in hospitals.values() for dataset in datasets(planted)]
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in found}) >= 4
    assert {dataset.PhotometricInterpretation for dataset in found} == {"MONOCHROME1", "MONOCHROME2"}
    assert {dataset.Modality for dataset in found} == {"CR", "DX"}


def test_a_patients_images_differ_but_keep_one_identity(hospitals: dict[str, Planted]) -> None:
    patients = defaultdict(list)
    for dataset in datasets(hospitals["south"]):
        patients[dataset.PatientID].append(dataset)
    several = [images for images in patients.values() if len(images) > 1]
    assert several
    for images in several:
        assert len({image.SOPInstanceUID for image in images}) == len(images)
        assert len({str(image.PatientName) for image in images}) == 1
        assert not np.array_equal(images[0].pixel_array, images[1].pixel_array)


def test_broken_files_are_broken_each_in_its_own_way(hospitals: dict[str, Planted]) -> None:
    place = hospitals["north"].images / "LOST+FOUND"
    assert (place / "EMPTY.dcm").stat().st_size == 0
    assert "PixelData" not in dcmread(place / "NOPIXELS.dcm")
    for path in (place / "SHORT.dcm", next(place.glob("*cut off.dcm"))):
        with pytest.raises((ValueError, EOFError, AttributeError)):
            _ = dcmread(path).pixel_array
    with pytest.raises(InvalidDicomError):
        dcmread(next(place.glob("*note.txt")))
    assert len(list(place.iterdir())) == hospitals["north"].broken


def test_one_object_was_exported_twice(hospitals: dict[str, Planted]) -> None:
    copy = next(hospitals["east"].images.glob("Copy of*"))
    assert copy.read_bytes() in [path.read_bytes() for path in good_files(hospitals["east"])]


def test_the_same_seed_gives_the_same_bytes_with_one_process_or_two(tmp_path: Path) -> None:
    for folder, workers in (("one", 1), ("two", 2)):
        write_hospital(
            tmp_path / folder, "south", patients=20, seed=9, images_per_patient=(2, 2), workers=workers
        )
    one = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(one) > 40
    for path in one:
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert twin.read_bytes() == path.read_bytes()


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_hospital(
        tmp_path, "north", patients=1, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_an_unknown_hospital_is_refused_with_the_known_ones_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"west.*north, east, south"):
        write_hospital(tmp_path, "west", patients=3, seed=0)


def test_more_patients_than_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different names"):
        write_hospital(tmp_path / "h", "east", patients=5000, seed=0)
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(64, 64), (5, 7)])
def test_a_plain_image_comes_back_as_it_was(tmp_path: Path, dtype: type, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    found = write_image(tmp_path / "a" / "x.dcm", pixels, patient="P-1", study_uid="1.2.3", accession="ACC")
    dataset = dcmread(tmp_path / "a" / "x.dcm")
    assert np.array_equal(dataset.pixel_array, pixels)
    assert (dataset.SOPInstanceUID, dataset.StudyInstanceUID) == (found, "1.2.3")
    assert (dataset.PatientID, dataset.AccessionNumber) == ("P-1", "ACC")


def test_plain_images_of_a_patient_get_different_uids(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    uids = [write_image(tmp_path / f"{n}.dcm", pixels, patient="P-1") for n in range(3)]
    assert len(set(uids)) == 3
