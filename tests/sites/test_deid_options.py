"""What the options of Annex E let stay, and that each value of it is looked at."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, icc, write
from fedai_site.deidentify.profile import load_profile
from fedai_site.quarantine import Quarantine
from pydicom import config
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

OPHTHALMIC = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"


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


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("basic", "REMOVED"),
        ("basic+device", "UNMODIFIED"),
        ("basic+device+modified-dates", "MODIFIED"),
        ("basic+device+full-dates", "UNMODIFIED"),
    ],
)
def test_what_is_said_about_dates_is_what_happened_to_those_of_the_device(profile: str, said: str) -> None:
    kept = clean(radiograph(DateOfLastCalibration="20200102", TimeOfLastCalibration="101500"), profile)
    assert kept.LongitudinalTemporalInformationModified == said
    assert ("DateOfLastCalibration" in kept) == (profile != "basic")
    assert clean(radiograph(), "basic+device").LongitudinalTemporalInformationModified == "REMOVED"


@pytest.mark.parametrize(
    ("name", "value", "stays"),
    [
        ("EthnicGroup", "ASIAN", True),
        ("EthnicGroup", "Asian/Korean", True),
        ("EthnicGroup", "Zebulon's wife", False),
        ("EthnicGroup", "Kim's", False),
        ("PatientSexNeutered", "ALTERED", True),
        ("PatientSexNeutered", "ZEBULON", False),
        ("PatientSex", "F", True),
        ("PatientSex", "ZEBULON", False),
        ("SmokingStatus", "YES", True),
        ("SmokingStatus", "WITH ZEBULON", False),
    ],
)
def test_characteristics_of_the_patient_stay_only_in_common_words(name: str, value: str, stays: bool) -> None:
    kept = clean(radiograph(**{name: value}), "basic+patient")
    assert (kept.get(name) == value) == stays
    assert stays or not kept.get(name)


def item(value_type: str, **values: Any) -> Dataset:
    name, found = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121071", "DCM", "Finding"
    found.RelationshipType, found.ValueType, found.ConceptNameCodeSequence = (
        "CONTAINS", value_type, Sequence([name]),
    )  # fmt: skip
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def test_an_item_of_a_report_keeps_only_the_value_that_its_type_has() -> None:
    others = {"TextValue": "Zebulon fell", "PersonName": "Zebulon", "Date": "20200102", "UID": "1.2.3.4"}
    types = ["CODE", "NUM", "CONTAINER", "SCOORD"]
    report = radiograph(ContentSequence=Sequence([item(kind, **others) for kind in types]))
    for profile in ("basic+structured-content", "basic+structured-content+full-dates+uids+descriptors"):
        kept = clean(report, profile)
        found = [each for each in kept.get("ContentSequence", []) if set(others) & set(each.dir())]
        assert [each.ValueType for each in kept.ContentSequence] == types
        assert not found


@pytest.mark.parametrize(
    ("uid", "stays"),
    [
        ("1.2.840.113619.2.55.3.1234", True),
        ("1.2.3.ZEBULON", False),
        ("1.2.3.004", False),
        ("1.2.3." + "4" * 64, False),
        ("1.2.3.1234567", False),
        ("1.2.3.12.345.67", False),
        ("1.2.3.19551231.4", False),
        ("1.2.3.31121955", False),
        ("Zebulon", False),
    ],
)
def test_uids_stay_if_they_are_some_and_hold_no_number_of_the_patient(uid: str, stays: bool) -> None:
    image = radiograph(patient="12-345-67", SeriesInstanceUID=uid, IrradiationEventUID=uid)
    kept = clean(image, "basic+uids")
    for name in ("SeriesInstanceUID", "IrradiationEventUID"):
        assert (kept[name].value == uid) == stays
        assert stays or str(kept[name].value).startswith("2.25.")


@pytest.mark.parametrize("said", ["NO", "YES"])
def test_that_nothing_is_to_be_seen_is_never_copied(said: str) -> None:
    assert clean(radiograph(BurnedInAnnotation=said)).get("BurnedInAnnotation") == {"YES": "YES"}.get(said)
    required = clean(radiograph(BurnedInAnnotation=said, SOPClassUID=OPHTHALMIC))
    assert required.BurnedInAnnotation == "YES"


def test_a_colour_profile_gives_way_to_that_of_srgb_whatever_its_numbers_say() -> None:
    profile = Path(str(get_testdata_file("crayons.icc"))).read_bytes()
    spelt = bytearray(profile + bytes(len(profile) % 2))
    spelt[-40:] = b"Zebulon, 12 Elm Street, born 31 Dec 1955"
    kept = clean(radiograph(ICCProfile=bytes(spelt), SOPClassUID=PHOTOGRAPH, ColorSpace="ADOBERGB"))
    assert kept.ICCProfile == icc.srgb()
    assert not kept.get("ColorSpace")
    assert "ICCProfile" not in clean(radiograph(ICCProfile=bytes(spelt)))


def test_the_profile_of_srgb_is_one_that_colour_engines_read_as_srgb() -> None:
    cms = pytest.importorskip("PIL.ImageCms")
    from io import BytesIO

    from PIL import Image

    ours = cms.ImageCmsProfile(BytesIO(icc.srgb()))
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    picture = Image.fromarray(colours)
    changed = cms.profileToProfile(picture, ours, cms.createProfile("sRGB"))
    assert np.abs(np.asarray(changed).astype(int) - colours).max() <= 2


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name)
def test_unused_bits_of_words_become_zeros_though_no_overlay_is_declared(syntax: Any) -> None:
    image = radiograph()
    pixels = np.frombuffer(image.PixelData, "<u2").copy()
    pixels[10:17] |= np.frombuffer(b"ZEBULON", np.uint8).astype("<u2") << 12 & 0xF000
    order = "<u2" if syntax.is_little_endian else ">u2"
    before = np.frombuffer(image.PixelData, "<u2")
    image.PixelData = pixels.astype(order).tobytes()
    after = parse(write(Deidentifier(SECRET).clean(parse(encode(image, syntax)))))
    assert np.array_equal(np.frombuffer(after.PixelData, order), before)


def test_repeated_signs_stay_and_anything_else_above_signed_words_is_quarantined() -> None:
    signed = np.arange(-96, 96, dtype="<i2") * 20
    image = radiograph(PixelRepresentation=1, PixelData=signed.tobytes())
    assert clean(image).PixelData == signed.tobytes()
    signed[3] = 0x5A01
    with pytest.raises(Quarantine, match="OVERLAY_IN_PIXELS"):
        clean(radiograph(PixelRepresentation=1, PixelData=signed.tobytes()))


def test_bits_are_taken_out_of_pixels_that_somebody_has_looked_at_before() -> None:
    image = parse(encode(radiograph(PixelData=b"\xff\xff" * 192)))
    assert image.PixelData[:2] == b"\xff\xff"
    after = parse(write(Deidentifier(SECRET).clean(image)))
    assert after.PixelData == b"\xff\x0f" * 192
