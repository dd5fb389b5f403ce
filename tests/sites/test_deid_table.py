from __future__ import annotations

import runpy
import warnings
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, write
from fedai_site.deidentify.explain import table_markdown
from fedai_site.deidentify.iod import iod
from fedai_site.deidentify.profile import Option, Profile
from fedai_site.deidentify.table import load_table, standard_vr
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

CR = "1.2.840.10008.5.1.4.1.1.1"
SET_ANEW = {0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00100020}
COPIES = {"X": "X", "Z": "Z", "D": "D", "U": "U", "Z_D": "Z/D", "X_Z": "X/Z", "X_D": "X/D", "X_Z_D": "X/Z/D"}
UNLISTED = 0x00189346  # CTDI Phantom Type Code Sequence: not in the table, not in a CR image
BINARY = {"US": 7, "OB": b"\7\7", "UN": b"Zebulon\0", "DS": "71.5", "IS": "7", "AS": "045Y"}
DATES = {"DA": "19871224", "TM": "221133.5", "DT": "19871224221133"}
SPECIAL = {
    0x00101020: "1.71",  # a size in metres
    0x00080201: "+0900",  # an offset from UTC
    0x00100040: "F",
    0x00102160: "ASIAN",
    0x00102162: "ASIAN",
    0x001021A0: "YES",
    0x00102203: "ALTERED",
}
"""Values that are what they should be, where an option lets no other stay."""
COLUMNS = ["basic", *Option]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def test_the_table_agrees_with_a_second_public_copy() -> None:
    """dicom-anonymizer's table of edition 2026c. Rows that only one of the two editions has are few."""
    paths = [path for path in files("dicom-anonymizer") or [] if path.name == "dicomfields_2026c.py"]
    second = runpy.run_path(str(Path(str(paths[0].locate()))))
    theirs = {
        group << 16 | element: code
        for name, code in {**COPIES, "X_Z_U_STAR": "X/Z/U*"}.items()
        for group, element, *rest in second[f"{name}_TAGS"]
        if not rest
    }
    ours = load_table().actions
    assert len(theirs) > 640
    assert {f"{tag:08X}" for tag in ours.keys() & theirs.keys() if ours[tag] != theirs[tag]} == set()
    assert len(ours.keys() ^ theirs.keys()) <= 3


def test_the_table_says_where_it_came_from() -> None:
    table = load_table()
    assert table.edition == "2026d"
    assert len(table.sha256_of_source_xml) == 64
    assert len(table.rows) + len(table.patterns) == 657


def test_the_page_in_the_docs_is_what_the_rules_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "deidentification-table.md"
    assert page.read_text(encoding="utf-8") == table_markdown()


def planted(tag: int) -> Any:
    """A value of its own for each attribute."""
    vr = standard_vr(tag)
    if vr == "SQ":
        item = Dataset()
        item.add_new(0x00100010, "PN", f"Nested{tag:08X}")
        item.add_new(0x0008103E, "LO", f"Nested{tag:08X}")
        return Sequence([item])
    if vr == "UI":
        return f"1.2.3.{tag}"
    return SPECIAL.get(tag) or BINARY.get(vr) or DATES.get(vr) or f"P{tag:08X}"


def listed() -> list[int]:
    return [tag for tag in load_table().rows if tag >> 16 >= 8 and tag not in SET_ANEW]


def fill(item: Dataset) -> Dataset:
    for tag in listed():
        item[tag] = DataElement(tag, standard_vr(tag), planted(tag))
    return item


def image(nested: bool) -> Dataset:
    whole = radiograph()
    if not nested:
        return fill(whole)
    whole.add_new(UNLISTED, "SQ", Sequence([fill(Dataset())]))
    return whole


def allowed(code: str, kind: str, vr: str) -> set[str]:
    """What may become of an attribute of this code and Type: the Standard's words, one by one."""
    required, present = kind in ("1", "1C"), kind in ("2", "2C")
    plain = {"X": {"absent"}, "Z": {"empty", "changed"}, "D": {"changed"}, "U": {"changed"}}
    if code in plain:
        return plain[code]
    if code == "X/Z/U*":
        return {"changed"}
    if code == "Z/D":
        return {"changed"} if required else {"empty"}
    if required:
        return {"changed"} if "D" in code else {"empty", "changed"}
    if present:
        return {"empty"} if "Z" in code else {"changed"}
    return {"absent"}


def outcome(after: DataElement | None, tag: int) -> str:
    if after is None:
        return "absent"
    if after.is_empty:
        return "empty"
    before = planted(tag)
    if after.VR == "SQ":
        assert f"Nested{tag:08X}" not in str(after)
        return "changed"
    value = after.value.original_string if hasattr(after.value, "original_string") else after.value
    return "kept" if value == before or str(value) == str(before) else "changed"


@pytest.mark.parametrize("nested", [False, True], ids=["top", "inside an unlisted sequence"])
@pytest.mark.parametrize("column", COLUMNS)
def test_every_row_is_treated_as_each_column_says(column: str, nested: bool) -> None:
    options = frozenset() if column == "basic" else frozenset({Option(column)})
    profile = Profile(options=options)
    cleaned = parse(write(Deidentifier(SECRET, profile).clean(parse(encode(image(nested))))))
    place = cleaned[UNLISTED].value[0] if nested else cleaned
    level = iod(CR).below(UNLISTED) if nested else iod(CR)
    wrong = [
        f"{tag:08X} {found}"
        for tag in listed()
        if (found := outcome(place.get(tag), tag)) not in expected(tag, options, level.type(tag))
    ]
    assert wrong == []


def expected(tag: int, options: frozenset[Option], kind: str) -> set[str]:
    row, vr = load_table().rows[tag], standard_vr(tag)
    basic = allowed(row.basic, kind, vr)
    cells = {row.options.get(option.column) for option in options}
    if "C" in cells:
        if vr in DATES:
            return {"kept"} if vr == "TM" else {"changed"}
        return {"changed", *basic}  # what nothing is left of falls back
    if "K" in cells:
        return {"changed"} if vr == "SQ" else {"kept"}
    return basic


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("column", COLUMNS)
def test_no_removed_value_is_left_in_the_bytes(column: str, nested: bool) -> None:
    options = frozenset() if column == "basic" else frozenset({Option(column)})
    data = write(Deidentifier(SECRET, Profile(options=options)).clean(parse(encode(image(nested)))))
    rows = load_table().rows
    kept = {tag for tag in listed() if "K" in {rows[tag].options.get(option.column) for option in options}}
    assert b"Nested" not in data
    assert [f"{tag:08X}" for tag in listed() if tag not in kept and f"P{tag:08X}".encode() in data] == []
    assert b"Zebulon" not in data


def test_cleaning_goes_before_keeping_when_two_options_speak() -> None:
    both = Profile(options=frozenset({Option.DEVICE, Option.MODIFIED_DATES}))
    kept = Deidentifier(SECRET, both).clean(radiograph(DateOfLastCalibration="20200301")).dataset
    assert kept.DateOfLastCalibration not in ("20200301", "")


def test_a_listed_sequence_that_is_newer_than_the_reader_s_dictionary_is_cleaned_in_implicit_vr_too() -> None:
    whole = radiograph()
    whole.add_new(0x00081301, "SQ", planted(0x00081301))
    engine = Deidentifier(SECRET, Profile(options=frozenset({Option.DESCRIPTORS})))
    out = write(engine.clean(parse(encode(whole, ImplicitVRLittleEndian))))
    assert b"Nested" not in out


def test_curves_and_overlays_belong_to_the_table() -> None:
    table = load_table()
    assert [table.action(tag) for tag in (0x50003000, 0x50FE0005, 0x60003000, 0x60FE4000)] == ["X"] * 4
    assert table.action(0x60000010) is None
    assert table.action(0x51003000 | 0x00010000) is None
