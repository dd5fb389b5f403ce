from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, describe, write
from fedai_site.deidentify.table import load_table
from fedai_site.quarantine import Quarantine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
PLANT = "Zebulon"
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The planted values don't fit their representations; pydicom would say so for each."""
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def clean(image: Dataset, secret: bytes = SECRET) -> Dataset:
    return parse(write(Deidentifier(secret).clean(image)))


def planted(vr: str) -> Any:
    """A value that identifies, of any representation that can hold one."""
    if vr in TEXT:
        return PLANT
    values = {"DA": "19551231", "TM": "123456", "DT": "19551231123456", "AS": "068Y", "UI": "1.2.3.777777"}
    return values.get(vr) or (PLANT.encode() + b"\0" if vr in ("OB", "UN", "OW") else None)


def attributes() -> Iterator[tuple[int, str]]:
    """Every attribute of the dictionary that can hold a planted value, but for pixels and structure."""
    for tag, (vr, *_) in DicomDictionary.items():
        if tag >> 16 >= 8 and tag >> 16 != 0x7FE0 and tag < 0xFFFA0000 and planted(vr) is not None:
            yield tag, vr


def fill(item: Dataset) -> Dataset:
    for tag, vr in attributes():
        if tag not in item and tag not in (0x00080005, 0x00281201, 0x00281202, 0x00281203):
            item.add(DataElement(tag, vr, planted(vr)))
    return item


SYMPTOMS = re.compile(rb"zebulon|19551231|068Y|1\.2\.3\.777777|Hong|MRN-1", re.IGNORECASE)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_no_value_planted_in_any_attribute_of_the_standard_is_left_at_any_depth(
    depth: int, syntax: Any
) -> None:
    image = radiograph()
    item = image
    for _ in range(depth):
        item.ReferencedImageSequence = Sequence([Dataset()])
        item = item.ReferencedImageSequence[0]
    fill(item)
    allowed = {0x00281221, 0x00281222, 0x00281223, 0x00283006}
    for tag in allowed:  # lookup tables are passed through: pixels need them
        item.pop(tag, None)
    data = write(Deidentifier(SECRET).clean(parse(encode(image, syntax))))
    assert {match.group() for match in SYMPTOMS.finditer(data)} == set()


def test_the_device_s_text_goes_too_when_it_names_the_patient() -> None:
    image = radiograph(Manufacturer="SIEMENS", SoftwareVersions="GILDONG VB20", BodyPartExamined="HONG")
    image.ManufacturerModelName, image.ConvolutionKernel = "call 0212345678", "a@b"
    kept = clean(image)
    assert kept.Manufacturer == "SIEMENS"
    for name in ("SoftwareVersions", "BodyPartExamined", "ManufacturerModelName", "ConvolutionKernel"):
        assert not kept.get(name), name


@pytest.mark.parametrize("nested", [False, True])
def test_every_listed_attribute_is_treated_as_the_table_says(nested: bool) -> None:
    for tag, action in load_table().actions.items():
        if tag >> 16 < 8 or tag >= 0xFFFA0000 or tag not in DicomDictionary:
            continue
        vr = dictionary_VR(tag)
        before = Sequence([Dataset()]) if vr == "SQ" else planted(vr) or (b"\x07\0" if vr[0] == "O" else 7)
        image = radiograph()
        place = image
        if nested:
            image.ReferencedImageSequence = Sequence([Dataset()])
            place = image.ReferencedImageSequence[0]
        place[tag] = DataElement(tag, vr.split(" ")[0], before)
        kept = clean(image)
        after = (kept.ReferencedImageSequence[0] if nested else kept).get(tag)
        check(action, after, before, vr, f"{tag:08X}")


def check(action: str, after: DataElement | None, before: Any, vr: str, name: str) -> None:
    if name in ("00120063", "00120064"):
        return  # set anew
    if action == "X":
        assert after is None, name
    elif after is None:
        assert "X" in action, name
    elif vr != "SQ":
        assert after.value != before, name
        assert "Z" in action or not after.is_empty, name


def test_private_attributes_curves_overlays_and_file_header_are_gone() -> None:
    image = radiograph()
    block = image.private_block(0x0009, "Zebulon creator", create=True)
    block.add_new(1, "LO", "Zebulon")
    nested = Dataset()
    nested.private_block(0x0011, "Zebulon creator", create=True).add_new(1, "UN", b"Zebulon")
    image.ReferencedImageSequence = Sequence([nested])
    image.add_new(0x60001500, "LO", "Zebulon")
    image.add_new(0x60003000, "OW", b"Zebulon\0")
    image.add_new(0x50003000, "OW", b"Zebulon\0")
    image.add_new(0xFFFCFFFC, "OB", b"Zebulon\0")
    data = bytearray(encode(image))
    data[:7] = b"Zebulon"
    kept = write(Deidentifier(SECRET).clean(parse(bytes(data))))
    assert b"Zebulon" not in kept
    assert kept[:128] == bytes(128)
    assert all(not element.tag.is_private for element in parse(kept).iterall())


def test_the_file_header_is_written_anew() -> None:
    image = radiograph()
    image.file_meta.SourceApplicationEntityTitle = "ZEBULON"
    image.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5"
    image.file_meta.PrivateInformation = b"Zebulon\0"
    kept = clean(image)
    assert set(kept.file_meta.keys()) == {0x00020000 + i for i in (0, 1, 2, 3, 0x10, 0x12, 0x13)}
    assert kept.file_meta.MediaStorageSOPInstanceUID == kept.SOPInstanceUID


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_pixels_pass_through_byte_for_byte_in_their_own_syntax(syntax: Any) -> None:
    image = radiograph()
    if not syntax.is_little_endian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image = parse(encode(image, syntax))
    original = bytes(image.PixelData)
    kept = clean(image)
    assert kept.PixelData == original
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert (kept.Rows, kept.Columns, kept.BitsStored) == (16, 12, 12)


def test_references_resolve_after_mapping_and_well_known_uids_stay() -> None:
    first, second = radiograph(1), radiograph(2)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        first.SOPClassUID,
        first.SOPInstanceUID,
    )
    second.ReferencedImageSequence = Sequence([reference])
    one, two = clean(first), clean(second)
    assert (
        two.ReferencedImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID != first.SOPInstanceUID
    )
    assert two.ReferencedImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert one.SOPInstanceUID.startswith("2.25.")
    assert one.SOPInstanceUID.is_valid


def test_another_key_gives_no_pseudonym_in_common() -> None:
    here, there = clean(radiograph()), clean(radiograph(), bytes(32))
    for name in ("PatientID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert here[name].value != there[name].value


def test_patients_without_an_id_are_never_merged() -> None:
    names = [
        "",
        None,
        "UNKNOWN",
        "0000",
        " ",
        "-",
        "N.A.",
        "?",
        "no id",
        "99999999",
        "0-0",
        "Unknown Patient",
    ]
    images = [radiograph(number, PatientID=name) for number, name in enumerate(names)]
    assert len({Deidentifier(SECRET).clean(image).patient for image in images}) == len(images)


def test_one_number_from_two_issuers_is_two_patients() -> None:
    north, south = radiograph(IssuerOfPatientID="North"), radiograph(IssuerOfPatientID="South")
    assert clean(north).PatientID != clean(south).PatientID


def test_a_patient_has_one_pseudonym_whatever_the_character_set_and_padding() -> None:
    latin = radiograph(1, patient="Ä-12", SpecificCharacterSet="ISO_IR 100")
    unicode = radiograph(2, patient="Ä-12 ", SpecificCharacterSet="ISO_IR 192")
    assert clean(parse(encode(latin))).PatientID == clean(parse(encode(unicode))).PatientID


def test_what_was_done_is_said_and_no_more() -> None:
    kept = clean(radiograph(BurnedInAnnotation="YES", DeidentificationMethod="by Zebulon"))
    assert kept.PatientIdentityRemoved == "YES"
    assert "Basic Profile" in kept.DeidentificationMethod
    assert [item.CodeValue for item in kept.DeidentificationMethodCodeSequence] == ["113100"]
    assert kept.BurnedInAnnotation == "YES"
    assert "RecognizableVisualFeatures" not in kept
    assert kept.LongitudinalTemporalInformationModified == "REMOVED"
    assert "BurnedInAnnotation" not in clean(radiograph())


def test_public_codes_stay_and_a_meaning_that_could_be_anything_does_not() -> None:
    def code(value: str, scheme: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "Zebulon's chest"
        return item

    image = radiograph()
    image.AnatomicRegionSequence = Sequence(
        [code("51185008", "SCT"), code("Zebulon", "SCT"), code("5", "99HOSP")]
    )
    found = [(item.CodeValue, item.CodeMeaning) for item in clean(image).AnatomicRegionSequence]
    assert found == [
        ("51185008", "Thoracic structure (body structure)"),
        ("ANONYMIZED", "ANONYMIZED"),
        ("ANONYMIZED", "ANONYMIZED"),
    ]


def test_text_in_an_attribute_for_numbers_or_codes_is_emptied() -> None:
    image = radiograph()
    image.KVP, image.SeriesNumber, image.ViewPosition = "88888888", "77777777", "PLACE"
    data = encode(image).replace(b"88888888", b"Zebulon ").replace(b"77777777", b"12 Zebul")
    kept = clean(parse(data.replace(b"PLACE ", b"zebulo")))
    assert not [name for name in ("KVP", "SeriesNumber", "ViewPosition") if kept.get(name)]


def test_an_attribute_that_hides_behind_another_representation_is_removed() -> None:
    image = radiograph()
    image.add_new(0x00189999, "US", 1)  # not in the Standard
    image.add_new(0x00180015, "LT", "Zebulon")  # BodyPartExamined is CS
    image.add_new(0x00189346, "LT", "Zebulon")  # CTDIPhantomTypeCodeSequence is SQ
    kept = clean(parse(encode(image)))
    assert not [tag for tag in (0x00189999, 0x00180015, 0x00189346) if tag in kept and kept[tag].value]


def test_sequences_nested_without_end_are_quarantined() -> None:
    image = radiograph()
    item = image
    for _ in range(60):
        item.ReferencedImageSequence = Sequence([Dataset()])
        item = item.ReferencedImageSequence[0]
    with pytest.raises(Quarantine, match="UNREADABLE"):
        Deidentifier(SECRET).clean(image)


def test_every_rule_describes_itself() -> None:
    lines = describe()
    assert any("Table E.1-1, edition 2026d" in line for line in lines)
    assert len(lines) >= 10


TAGS = st.sampled_from([tag for tag in DicomDictionary if 0x0008 <= tag >> 16 < 0x7FE0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TAGS, st.integers(0, 3)), max_size=25), st.sampled_from(SYNTAXES))
def test_whatever_is_put_in_the_output_is_readable_and_cleaning_it_again_removes_nothing_more(
    tags: list[tuple[int, int]], syntax: Any
) -> None:
    image = radiograph()
    for tag, depth in tags:
        item = image
        for _ in range(depth):
            if "ReferencedImageSequence" not in item:
                item.ReferencedImageSequence = Sequence([Dataset()])
            item = item.ReferencedImageSequence[0]
        vr = dictionary_VR(tag).split(" ")[0]
        value = planted(vr)
        if tag not in item and value is not None and tag != 0x00080005:
            item.add(DataElement(tag, vr, value))
    once = clean(parse(encode(image, syntax)))
    twice = clean(once)
    assert {element.tag for element in once} == {element.tag for element in twice}
    assert once.pixel_array.shape == (16, 12)


@pytest.mark.parametrize("number", [0x7FE00001, 0x7FE00002])
def test_an_offset_table_of_pixels_that_have_no_frames_in_fragments_goes(number: int) -> None:
    image = radiograph(1)
    image.add_new(number, "OV", b"HONG^GILDONG 1955-12-31 MRN-4711".ljust(64))
    assert number not in clean(image)
    floating = radiograph(2)
    floating.add_new(0x7FE00008, "OF", floating.PixelData * 2)
    del floating.PixelData
    floating.add_new(number, "OV", b"HONG^GILDONG 1955-12-31 MRN-4711".ljust(64))
    assert number not in clean(floating)
