from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, load_profile, write
from fedai_site.deidentify import parse as read
from fedai_site.deidentify.known import gather
from fedai_site.quarantine import Quarantine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
NAMES = {
    "ISO_IR 100": ("Müßig^Zoë", "Klinik Müßig"),
    "ISO_IR 144": ("Люкceмбypг^Анна", "Клиника Анна"),
    "ISO_IR 192": ("Hong^Gildong=洪^吉洞=홍^길동", "길동 병원"),
    "ISO 2022 IR 149": ("Hong^Gildong=洪^吉洞=홍^길동", "홍 길동 병원"),
    "ISO 2022 IR 87": ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 病院"),
    "ISO 2022 IR 13": ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ﾔﾏﾀﾞ ﾋﾞｮｳｲﾝ"),
    "GB18030": ("Wang^XiaoDong=王^小东", "小东医院"),
    "GBK": ("Wang^XiaoDong=王^小东", "小东医院"),
}
PATTERNS = ("utf-8", "utf-16-le", "euc_kr", "iso2022_jp", "shift_jis", "gb18030", "latin-1", "iso8859_5")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def charset(name: str) -> list[str] | str:
    return ["", name] if name.startswith("ISO 2022") and not name.endswith("13") else name


def named(character_set: str) -> Dataset:
    name, institution = NAMES[character_set]
    image = radiograph(PatientName=name, SpecificCharacterSet=charset(character_set))
    image.InstitutionName, image.StationName = institution, "CT 1"
    image.ReferencedStudySequence = Sequence([Dataset()])
    image.ReferencedStudySequence[0].PatientName = name
    return parse(encode(image))


def forms(name: str) -> Iterator[bytes]:
    for part in name.replace("=", "^").split("^"):
        for pattern in PATTERNS:
            try:
                encoded = part.encode(pattern)
            except UnicodeError:
                continue
            if len(encoded) > 2:
                yield encoded


@pytest.mark.parametrize("profile", ["basic", "basic+institution+device+descriptors", "basic+modified-dates"])
@pytest.mark.parametrize("character_set", NAMES)
def test_a_name_in_any_script_is_found_in_whatever_is_kept(character_set: str, profile: str) -> None:
    data = write(Deidentifier(SECRET, load_profile(profile)).clean(named(character_set)))
    assert [form for form in forms(NAMES[character_set][0]) if form in data] == []


@pytest.mark.parametrize("character_set", NAMES)
def test_all_writings_of_a_name_are_known(character_set: str) -> None:
    known = gather(named(character_set))
    for part in NAMES[character_set][0].replace("=", "^").split("^"):
        assert len(part) < 2 or known.is_in(f"x {part} y"), part


def test_text_that_is_kept_is_utf_8_and_says_so() -> None:
    image = radiograph(SpecificCharacterSet=["", "ISO 2022 IR 149"], InstitutionName="서울 병원")
    engine = Deidentifier(SECRET, load_profile("basic+institution"))
    kept = parse(write(engine.clean(parse(encode(image)))))
    assert kept.InstitutionName == "서울 병원"
    assert kept.SpecificCharacterSet == "ISO_IR 192"
    assert "SpecificCharacterSet" not in parse(write(engine.clean(radiograph(InstitutionName="Seoul"))))


@pytest.mark.parametrize("stated", ["ISO_IR 192", "ISO_IR 100", "nonsense", "", "ISO 2022 IR 58", "\\\\\\"])
def test_a_wrong_character_set_neither_crashes_nor_leaks(stated: str) -> None:
    image = radiograph(SpecificCharacterSet="ISO_IR 192", PatientName="홍^길동", InstitutionName="길동 병원")
    data = encode(image).replace(b"ISO_IR 192", stated.encode().ljust(10)[:10])
    for profile in ("basic", "basic+institution+descriptors"):
        try:
            out = write(Deidentifier(SECRET, load_profile(profile)).clean(parse(data)))
        except Quarantine:
            continue
        assert "길동".encode() not in out


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_number_of_the_patient_is_found_in_numbers_of_any_representation(syntax: Any) -> None:
    image = radiograph(patient="4821377", AcquisitionNumber="4821377", ExposureTime="4821377")
    image.add_new(0x00189073, "FD", 4821377.0)
    image.add_new(0x00189328, "FD", 0.5)  # Exposure Time in ms
    image.add_new(0x00220030, "FL", [4821377.0])
    image.add_new(0x00186016, "UL", 4821377)
    image.add_new(0x00186018, "UL", 12)
    kept = parse(write(Deidentifier(SECRET).clean(parse(encode(image, syntax)))))
    assert "4821377" not in str(kept)
    assert kept[0x00189328].value == 0.5
    assert kept[0x00186018].value == 12


@pytest.mark.parametrize(
    "number", ["01012345678", "19551231", "9001011234567", "010-1234-5678", "20240131.0"]
)
def test_what_looks_like_a_telephone_a_date_or_a_resident_number_is_no_measurement(number: str) -> None:
    image = radiograph(SliceThickness="1.25", DistanceSourceToPatient="7" * len(number))
    image = parse(encode(image).replace(b"7" * len(number), number.encode()))
    kept = parse(write(Deidentifier(SECRET).clean(image)))
    assert number not in str(kept)
    assert kept.SliceThickness == 1.25


PLANT = "Zebulon"
MORE = "modified-dates+descriptors+institution+safe-private"
PLANTABLE = {"LO", "SH", "ST", "LT", "UT", "UC", "PN", "CS", "AE", "UN", "OB", "UR", "DA", "TM", "DT"}
TAGS = [
    tag
    for tag, (vr, *_) in DicomDictionary.items()
    if vr in PLANTABLE and 8 <= tag >> 16 < 0x7FE0 and tag not in (0x00080005, 0x00420011)
    and not 0x00281201 <= tag <= 0x00281224 and tag >> 16 != 0x5400
]  # fmt: skip
SEQUENCES = [tag for tag, (vr, *_) in DicomDictionary.items() if vr == "SQ" and 8 <= tag >> 16 < 0x7FE0]


@st.composite
def items(draw: Any, depth: int = 0) -> Dataset:
    """A data set of random attributes, private blocks and nesting, with the token in all of them."""
    item = Dataset()
    for tag in draw(st.lists(st.sampled_from(TAGS), max_size=8)):
        vr = DicomDictionary[tag][0]
        text = draw(st.sampled_from([PLANT, PLANT.upper()]))
        item[tag] = DataElement(tag, vr, text.encode() + b"\0" if vr in ("OB", "UN") else text)
    if draw(st.booleans()):
        group, vr = draw(st.sampled_from([0x0009, 0x0019, 0x7053])), draw(st.sampled_from(["LO", "UN", "OB"]))
        block = item.private_block(group, f"{PLANT} X", create=True)
        block.add_new(draw(st.integers(0, 255)), vr, PLANT.encode() + b"\0")
    if depth < 3:
        for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=2)):
            below = draw(st.lists(items(depth + 1), max_size=2))
            item[tag] = DataElement(tag, "SQ", Sequence(below))
    return item


def planted(item: Dataset, character_set: str) -> Dataset:
    image = radiograph(PatientName="Kim^Zebulon", SpecificCharacterSet=character_set)
    for element in item:
        if element.tag not in image:
            image.add(element)
    return image


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(items(), st.sampled_from(SYNTAXES), st.sampled_from(["ISO_IR 100", "GB18030"]), st.data())
def test_no_planted_token_is_left_in_the_bytes_whatever_the_structure(
    item: Dataset, syntax: Any, character_set: str, data: Any
) -> None:
    profile = data.draw(st.sampled_from(["basic", f"basic+{MORE}"]))
    original = parse(encode(planted(item, character_set), syntax))
    engine = Deidentifier(SECRET, load_profile(profile))
    cleaned = engine.clean(original)
    out = write(cleaned)
    plain = "".join(map(str, parse(out))).encode() if syntax == DeflatedExplicitVRLittleEndian else out
    assert PLANT.lower().encode() not in plain.lower()
    assert PLANT.encode("utf-16-le") not in plain
    again = parse(write(engine.clean(parse(out))))
    assert {element.tag for element in again} == {element.tag for element in cleaned.dataset}
    assert parse(out).pixel_array.shape == (16, 12)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_file_is_cleaned_or_quarantined(data: Any) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    image = named("ISO 2022 IR 149")
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    raw = bytearray(encode(image, syntax))
    places = st.tuples(st.integers(132, len(raw) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(places, max_size=8)):
        raw[at] = value
    with suppress(Quarantine):
        write(Deidentifier(SECRET, load_profile("basic+institution+safe-private")).clean(read(bytes(raw))))
