from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import SECRET, radiograph
from fedai_site.deidentify import Deidentifier
from fedai_site.deidentify.profile import ALSO_CALLED, BASIC, CODES, Option, Profile, load_profile
from fedai_site.deidentify.table import load_table
from pydicom.dataset import Dataset

from fedai.errors import ConfigError


@pytest.mark.parametrize("option", Option)
def test_an_option_goes_by_its_name_its_code_and_the_standard_s_phrases(option: Option) -> None:
    code, meaning = CODES[option]
    for word in (option.value, code, meaning, meaning.lower().replace(" ", "-"), *ALSO_CALLED[option]):
        assert load_profile(f"basic+{word}").options == {option}, word


def test_each_option_has_a_column_in_the_table() -> None:
    table = load_table()
    rows = (*table.rows.values(), *table.patterns.values())
    assert {column for row in rows for column in row.options} == {option.column for option in Option}


def test_the_order_of_options_does_not_matter() -> None:
    assert load_profile("basic+uids+device") == load_profile(" Basic + device + Retain_UIDs ")
    assert load_profile("basic+uids+device").name == "basic+uids+device"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("basic+devise", "device"),
        ("basic+clean-descriptor", "descriptors"),
        ("device", "basic+device"),
        ("basic+113101", "leave it out"),
        ("basic+", "options"),
        ("nothing", "basic"),
        ("no-such-file.yaml", "path"),
    ],
)
def test_a_wrong_name_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile(text)
    assert hint in str(caught.value)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="contradict"):
        load_profile("basic+full-dates+modified-dates")
    with pytest.raises(ConfigError, match="dates"):
        load_profile("basic+device:year")


def test_dates_follow_from_the_options() -> None:
    texts = ("basic", "basic+modified-dates", "basic+modified-dates:year", "basic+full-dates")
    assert [load_profile(text).dates for text in texts] == ["remove", "shift", "year", "keep"]


def test_a_file_can_keep_what_is_only_denied_by_default_and_remove_more(tmp_path: Path) -> None:
    path = tmp_path / "chest.yaml"
    path.write_text("options: [device]\nkeep: [LUTExplanation]\nremove: ['(0018,0060)', Manufacturer]\n")
    profile = load_profile(str(path))
    image = radiograph(LUTExplanation="linear for chests", KVP="120", Manufacturer="SIEMENS")
    clean = Deidentifier(SECRET, profile).clean(image).dataset
    assert clean.LUTExplanation == "linear for chests"
    assert not clean.get("KVP")
    assert not clean.get("Manufacturer")
    hong = Deidentifier(SECRET, profile).clean(radiograph(LUTExplanation="for Gildong")).dataset
    assert not hong.get("LUTExplanation")


@pytest.mark.parametrize("name", ["PatientName", "StudyDescription", "'(0009,1001)'", "'(0011,0001)'"])
def test_a_file_can_not_keep_what_the_table_lists_or_nobody_knows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"keep: [{name}]\n")
    with pytest.raises(ConfigError, match="can't be kept"):
        load_profile(str(path))


@pytest.mark.parametrize("keep", ["RadiopharmaceuticalStopDateTime", "PixelData", "SpecificCharacterSett"])
def test_dates_bytes_and_misspelled_names_are_not_kept_by_name(tmp_path: Path, keep: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"keep: [{keep}]\n")
    with pytest.raises(ConfigError):
        load_profile(str(path))


def test_a_profile_is_written_the_same_whatever_the_order_in_memory() -> None:
    profile = load_profile("basic+uids+device+institution")
    assert profile.model_dump(mode="json")["options"] == ["device", "institution", "uids"]
    assert hash(profile) == hash(Profile.model_validate(profile.model_dump(mode="json")))


def codes(dataset: Dataset) -> list[str]:
    return [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


def test_the_marks_say_what_was_done() -> None:
    image = radiograph(StudyDate="20240229")
    for text, temporal in (
        ("basic", "REMOVED"),
        ("basic+modified-dates", "MODIFIED"),
        ("basic+modified-dates:year", "MODIFIED"),
        ("basic+full-dates", "UNMODIFIED"),
    ):
        clean = Deidentifier(SECRET, load_profile(text)).clean(image).dataset
        assert clean.LongitudinalTemporalInformationModified == temporal
        assert clean.PatientIdentityRemoved == "YES"
        assert "RecognizableVisualFeatures" not in clean
        assert "BurnedInAnnotation" not in clean
    everything = "+".join(option.value for option in Option if option is not Option.FULL_DATES)
    clean = Deidentifier(SECRET, load_profile(f"basic+{everything}")).clean(image).dataset
    assert codes(clean) == ["113100", *(str(code) for code in range(113103, 113113) if code != 113106)]
    assert codes(Deidentifier(SECRET).clean(image).dataset) == ["113100"]
    assert BASIC.codes() == [("113100", "Basic Application Confidentiality Profile")]
