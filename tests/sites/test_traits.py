from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_files import encode, parse, radiograph
from fedai_site import intake
from fedai_site.deidentify.pseudonyms import Pseudonyms
from fedai_site.quarantine import Quarantine, Reason
from fedai_site.traits import CONSTANT, UNKNOWN, Traits, look_of, traits_of
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

NAMES = Pseudonyms(bytes(range(32)))


def traits(**changes: Any) -> Traits:
    data = encode(radiograph(1, **changes))
    return traits_of(intake.look(NAMES, parse(data), data))


def test_what_is_known_of_an_original_is_kept_coarsely() -> None:
    found = traits(
        BodyPartExamined="chest", Manufacturer="Siemens Healthineers", SliceThickness="2.50",
        PixelSpacing=[0.7, 0.8], PatientAge="045Y", StudyDate="20210430",
    )  # fmt: skip
    assert (found.body_part, found.manufacturer) == ("CHEST", "SIEMENS")
    assert (found.slice_thickness_mm, found.spacing_mm) == (2.5, 0.7)
    assert (found.age_years, found.study_year) == (45, 2021)


@pytest.mark.parametrize(
    ("age", "birth", "years"),
    [("045Y", "19800101", 45), ("023M", "", 1), ("102Y", "", 90), ("", "19600502", 60), ("", "19600429", 61),
     ("", "19000101", 90), ("45", "", None), ("", "20300101", None)],
)  # fmt: skip
def test_ages_are_whole_years_up_to_ninety(age: str, birth: str, years: int | None) -> None:
    found = traits(PatientAge=age, PatientBirthDate=birth, StudyDate="20210430")
    assert found.age_years == years


@pytest.mark.parametrize(
    "name",
    [
        "KIM MINJUN",
        "HONG GILDONG",
        "MRN-123456",
        "19551231",
        "O'NEILL",
        "HAND 5512",
        "0551",
        "P1 D2 X3",
        "LI",
    ],
)
def test_a_name_in_the_place_of_a_body_part_or_a_maker_is_not_kept(name: str) -> None:
    found = traits(BodyPartExamined=name, Manufacturer=name)
    assert (found.body_part, found.manufacturer) == ("", "")


@pytest.mark.parametrize(
    ("said", "maker"),
    [("GE MEDICAL SYSTEMS", "GE"), ("GEMS", "GE"), ("Philips Medical Systems", "PHILIPS"), ("IMAGE INC", ""),
     ("FUJI PHOTO FILM Co., ltd.", "FUJIFILM"), ("Konica Minolta", "KONICA MINOLTA"),
     ("UIH", "UNITED IMAGING")],
)  # fmt: skip
def test_makers_are_known_by_the_names_that_they_write(said: str, maker: str) -> None:
    assert traits(Manufacturer=said).manufacturer == maker


@pytest.mark.parametrize(
    ("said", "sex"), [("F", "F"), ("m ", "M"), ("O", "O"), ("", ""), ("W", ""), ("HONG GILDONG", "")]
)
def test_the_sex_is_kept_as_one_of_three_letters(said: str, sex: str) -> None:
    assert traits(PatientSex=said).sex == sex


def test_an_enhanced_object_says_its_measures_in_its_shared_groups() -> None:
    measures, group = Dataset(), Dataset()
    measures.SliceThickness, measures.PixelSpacing = "1.25", ["0.5", "0.5"]
    group.PixelMeasuresSequence = [measures]
    found = traits(SharedFunctionalGroupsSequence=[group])
    assert (found.slice_thickness_mm, found.spacing_mm) == (1.25, 0.5)


def test_the_same_pixels_have_one_hash_in_every_transfer_syntax_and_under_every_patient() -> None:
    plain, *packed = [radiograph(1, patient, rows=64, columns=64) for patient in ("A", "B", "C")]
    packed[0].compress(RLELossless)
    packed[1].compress(JPEG2000Lossless)
    hashes = set()
    for image in (plain, *packed):
        data = encode(image, image.file_meta.TransferSyntaxUID)
        hashes.add(intake.look(NAMES, parse(data), data)["image"])
    assert len(hashes) == 1
    assert hashes != {traits(PixelData=bytes(2 * 16 * 12)).image}


def test_another_key_gives_another_hash_of_the_pixels() -> None:
    data = encode(radiograph(1))
    other = Pseudonyms(bytes(32))
    assert intake.look(NAMES, parse(data), data)["image"] != intake.look(other, parse(data), data)["image"]


def test_an_image_of_one_value_has_no_hash() -> None:
    found = traits(PixelData=bytes(2 * 16 * 12))
    assert (found.image, found.looks) == ("", CONSTANT)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.floats(0.1, 50),
    st.floats(-100, 100),
    st.integers(0, 2**32 - 1),
)
def test_brightness_and_contrast_change_nothing_and_a_negative_all(
    rows: int, columns: int, contrast: float, brightness: float, seed: int
) -> None:
    image = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    other = (image.astype(np.float64) * contrast + brightness).astype(np.float64)
    look = look_of(image)
    assert look_of(other) == look  # type: ignore[arg-type]
    if columns > 16 and look != CONSTANT:
        assert int(look, 16) ^ int(look_of(-image), 16) == 2**256 - 1


def test_what_an_earlier_release_did_not_keep_is_not_known() -> None:
    assert traits_of({"modality": "CR"}) == UNKNOWN
    assert traits_of(Traits("CHEST", "GE", 1.5, None, 0, 2020, "ab", "cd").told()).age_years == 0


def test_lengths_are_kept_to_three_digits() -> None:
    assert traits(SliceThickness="0.5551231987").slice_thickness_mm == 0.555


WINDOWS: list[dict[str, Any]] = [
    {"WindowCenter": "100", "WindowWidth": "0"},
    {"WindowCenter": "100", "WindowWidth": "-5", "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": "HONG GILDONG"},
]
ODD: list[dict[str, Any]] = [
    {"RescaleSlope": ["1", "2"], "RescaleIntercept": "0"},
    {"PhotometricInterpretation": "PALETTE COLOR"},
]


@pytest.mark.parametrize("changes", WINDOWS)
def test_a_window_that_is_none_is_left_out_and_the_image_is_usable(changes: dict[str, Any]) -> None:
    data = encode(radiograph(1, **changes))
    assert traits_of(intake.look(NAMES, parse(data), data)).looks == traits().looks
    assert intake.decode(data).shape == (16, 12)


@pytest.mark.parametrize("changes", ODD)
def test_pixels_that_training_could_not_see_are_quarantined_at_the_door(changes: dict[str, Any]) -> None:
    data = encode(radiograph(1, **changes))
    with pytest.raises(Quarantine) as caught:
        intake.look(NAMES, parse(data), data)
    assert caught.value.reason == Reason.UNDECODABLE
    with pytest.raises(Quarantine):
        intake.decode(data)
