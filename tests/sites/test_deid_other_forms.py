"""Identifiers of the same object, written otherwise than where they come from, in values that may stay."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, bulk, write
from fedai_site.deidentify.profile import load_profile
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

PATIENT = {
    "PatientID": "12-345-6789",
    "PatientName": "Li^Wu",
    "PatientBirthDate": "19550412",
    "PatientTelephoneNumbers": "+82-10-1234-5678",
    "OtherPatientIDs": "A-77-4411",
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def clean(image: Dataset, profile: str = "basic") -> Dataset:
    return parse(write(Deidentifier(SECRET, load_profile(profile)).clean(parse(encode(image)))))


def kept(name: str, vr: str, value: bytes, **patient: Any) -> bool:
    """Whether the value stays in the attribute."""
    image = radiograph(**(PATIENT | patient))
    tag = BaseTag(_tag(name))
    image._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    after = clean(image)
    return tag in after and value.strip(b" \0") in write_back(after, tag)


def write_back(dataset: Dataset, tag: BaseTag) -> bytes:
    element = dataset.get_item(tag)
    return bytes(element.value) if isinstance(element.value, bytes) else str(element.value).encode()


def _tag(name: str) -> int:
    from pydicom.datadict import tag_for_keyword

    found = tag_for_keyword(name)
    assert found is not None
    return found


@pytest.mark.parametrize("text", ["LI WU", "WU LI", "LI_WU", "WU", "LIWU", "L I W U", "li^wu"])
@pytest.mark.parametrize("name", ["BodyPartExamined", "SoftwareVersions"])
def test_a_name_of_two_letter_parts_is_found_in_codes_and_device_text(name: str, text: str) -> None:
    vr = "CS" if name == "BodyPartExamined" else "LO"
    assert not kept(name, vr, text.encode())


@pytest.mark.parametrize("text", ["HONG3D", "T1HONG", "HO3NG", "2HO NG", "1955", "069Y", "69Y", "DONG GIL"])
@pytest.mark.parametrize("name", ["BodyPartExamined", "SoftwareVersions", "SequenceName"])
def test_names_with_digits_in_them_and_ages_and_years_of_birth_are_found(name: str, text: str) -> None:
    vr = {"BodyPartExamined": "CS", "SoftwareVersions": "LO"}.get(name, "SH")
    assert not kept(name, vr, text.encode(), PatientName="Hong^Gil Dong")


@pytest.mark.parametrize(
    "digits",
    [
        *(b"123456789", b"+123456789", b"123456789.0", b"1234567.89", b"1.23456789e8", b"123\\456\\789"),
        *(b"987654321", b"774411", b"821012345678", b"1012345678", b"01012345678"),
    ],
)
def test_an_identifier_with_separators_is_found_as_plain_digits(digits: bytes) -> None:
    name, vr = ("ReferencedFrameNumber", "IS") if digits.isdigit() else ("RevolutionTime", "DS")
    if b"\\" in digits:
        name, vr = "PixelAspectRatio", "IS"
    assert not kept(name, vr, digits)


@pytest.mark.parametrize(
    "digits",
    [
        *(b"19550412", b"12041955", b"04121955", b"19551204", b"550412", b"120455", b"041255"),
        *(b"4121955", b"1241955", b"1955.0412", b"41255"),
    ],
)
def test_a_day_is_found_in_every_order(digits: bytes) -> None:
    name, vr = ("ExposureTime", "IS") if digits.isdigit() else ("KVP", "DS")
    assert not kept(name, vr, digits)


@pytest.mark.parametrize(
    "text",
    [
        *(b"010 1234 5678", b"1234 5678", b"1955 04 12", b"12 04 1955", b"55_04_12", b"12APR1955"),
        *(b"APR 12 1955", b"12 345 6789", b"77 4411", b"31_12_98 123"),
    ],
)
def test_telephones_and_days_aren_t_codes(text: bytes) -> None:
    assert not kept("BodyPartExamined", "CS", text)


@pytest.mark.parametrize(
    ("name", "vr", "value"),
    [
        ("TotalCollimationWidth", "FD", b"MRN12345"),
        ("TotalCollimationWidth", "FD", struct.pack("<d", 123456789)),
        ("TotalCollimationWidth", "FD", struct.pack("<d", 12345.6789)),
        ("TotalCollimationWidth", "FD", struct.pack("<d", 12041955)),
        ("ExaminedBodyThickness", "FL", b"LIWU"),
        ("ExaminedBodyThickness", "FL", struct.pack("<f", 123456789)),
        ("ExaminedBodyThickness", "FL", struct.pack("<f", 19550412)),
        ("ReferencePixelX0", "SL", struct.pack("<i", -123456789)),
        ("ReferencePixelX0", "SL", struct.pack("<i", 120455)),
        ("SelectorSVValue", "SV", struct.pack("<q", -821012345678)),
        ("SelectorUVValue", "UV", struct.pack("<Q", 821012345678)),
        ("SelectorUSValue", "US", "Zebulon1".encode("ascii")),
        ("SelectorUSValue", "US", "HONG12".encode("utf-16-le")),
        ("SelectorFLValue", "FL", b"Zebulon lives at 12, Elm"),
    ],
)
def test_binary_numbers_neither_spell_nor_count_the_patient(name: str, vr: str, value: bytes) -> None:
    assert not kept(name, vr, value, OtherPatientNames="Hong12^Gildong")


@pytest.mark.parametrize(
    ("name", "vr", "value"),
    [
        ("BodyPartExamined", "CS", b"CHEST"),
        ("SoftwareVersions", "LO", b"syngo CT VB42B"),
        ("ExposureTime", "IS", b"120"),
        ("KVP", "DS", b"120.5"),
        ("TotalCollimationWidth", "FD", struct.pack("<d", 38.4)),
        ("ExaminedBodyThickness", "FL", struct.pack("<f", 38.4)),
        ("ScanOptions", "CS", b"HELICAL"),
        ("ReferencePixelX0", "SL", struct.pack("<i", -120)),
        ("PatientOrientation", "CS", b"L\\F"),
    ],
)
def test_what_is_nobody_s_stays(name: str, vr: str, value: bytes) -> None:
    assert kept(name, vr, value)


@pytest.mark.parametrize("name", ["Se^No", "Mr^Ct", "Ma^M"])
def test_defined_terms_stay_whatever_the_patient_is_called(name: str) -> None:
    image = radiograph(PatientName=name, ImageType=["ORIGINAL", "PRIMARY", "M", "SE"], ScanningSequence="SE")
    image.LossyImageCompression, image.Modality = "00", "MR"
    after = clean(image)
    assert (after.Modality, after.ScanningSequence, after.ImageType[3]) == ("MR", "SE", "SE")


@pytest.mark.parametrize("text", ["MUELLER", "Muller", "müller", "M\u00fc LLER", "MÃ¼ller"])
def test_a_name_with_an_umlaut_is_found_without_it(text: str) -> None:
    image = radiograph(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 192")
    image.InstitutionName = f"clinic of {text}"
    assert "InstitutionName" not in clean(image, "basic+institution") or not clean(
        image, "basic+institution"
    ).InstitutionName.strip().startswith("clinic of")


@pytest.mark.parametrize(
    "text", ["CHEST 12.04.1955", "CHEST 12-4-55", "CHEST 1955/04/12", "CHEST 12 04 1955"]
)
@pytest.mark.parametrize("name", ["SeriesDescription", "InstitutionAddress"])
def test_a_birth_date_goes_from_text_though_dates_or_names_of_institutions_stay(name: str, text: str) -> None:
    image = radiograph(**PATIENT, **{name: text})
    after = clean(image, "basic+full-dates+descriptors+institution")
    assert "55" not in str(after.get(name, ""))


@pytest.mark.parametrize("text", ["홍길순아", "Łódź żółć", "山田太郎太郎"])
def test_binary_numbers_that_are_a_text_in_utf_8_are_no_numbers(text: str) -> None:
    raw = text.encode()
    assert bulk.is_text(raw + b" " * (-len(raw) % 8), "FD", True)


@given(st.lists(st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.just(0.0), min_size=1, max_size=2))
def test_measured_numbers_are_not_taken_for_text(numbers: list[float]) -> None:
    assert not bulk.is_text(struct.pack(f"<{len(numbers)}d", *numbers), "FD", True)
