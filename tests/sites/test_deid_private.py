from __future__ import annotations

import pytest
from fedai_site.deidentify.private import Block, decide, is_clean, is_safe, load_table, safe_vr, said_action
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("creator", "group", "element", "vr"),
    [
        ("Philips PET Private Group", 0x7053, 0x00, "DS"),
        ("Philips PET Private Group", 0x7053, 0x09, "DS"),
        ("ELSCINT1", 0x00E1, 0x21, "DS"),
        ("ELSCINT1", 0x01E1, 0x26, "CS"),
        ("GEMS_ACQU_01", 0x0019, 0x23, "DS"),
        ("GEMS_ACQU_01", 0x0019, 0x9E, "LO"),
        ("GEMS_PARM_01", 0x0043, 0x27, "SH"),
        ("GEMS_PARM_01", 0x0043, 0x39, "IS"),
        ("GEMS_HELIOS_01", 0x0045, 0x01, "SS"),
        ("GEMS_SERS_01", 0x0025, 0x07, "SL"),
        ("GEIIS PACS", 0x0903, 0x12, "US"),
        ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS"),
        ("SIEMENS MR HEADER", 0x0019, 0x27, "FD"),
        ("Philips Imaging DD 001", 0x2001, 0x03, "FL"),
        ("Philips MR Imaging DD 001", 0x2005, 0x0E, "FL"),
        ("NQHeader", 0x0099, 0x02, "UI"),
        ("HOLOGIC, Inc.", 0x7E01, 0x10, "SQ"),
    ],
)
def test_attributes_of_the_standards_table_are_safe_in_whatever_block(
    creator: str, group: int, element: int, vr: str
) -> None:
    assert safe_vr(creator, group, element) == vr
    assert safe_vr(creator + " ", group, 0x1200 | element) == vr
    assert not is_safe(creator.lower() + "x", group, element)
    assert not is_safe(creator, group + 2, element)


def test_what_is_not_listed_is_not_safe() -> None:
    assert not is_safe("GEMS_PARM_01", 0x0043, 0x28)
    assert not is_safe("SIEMENS CSA HEADER", 0x0029, 0x10)
    assert not is_safe("", 0x0019, 0x23)
    assert decide("ACME", 0x0019, 0x01, "DS") == ("X", "DS")


def test_bulk_data_is_not_kept_even_where_the_table_lists_it() -> None:
    assert load_table()["standard"]["HOLOGIC, Inc.", 0x7E01, 0x12] == "OB"
    assert not is_safe("HOLOGIC, Inc.", 0x7E01, 0x12)
    assert decide("ACME", 0x0019, 0x01, "OB", [Block(0x0019, "ACME", "SAFE")]) == ("X", "OB")


def test_the_archives_list_counts_only_if_asked_for_and_holds_numbers_and_codes_only() -> None:
    table = load_table()["archive"]
    assert len(load_table()["standard"]) == 466
    assert len(table) > 1000
    assert set(table.values()) <= {"DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "CS"}
    assert not is_safe("SIEMENS MR HEADER", 0x0019, 0x0B)
    assert is_safe("SIEMENS MR HEADER", 0x0019, 0x0B, archive=True)


BLOCKS = [
    Block(0x0029, "ACME 1.0", "MIXED", frozenset({1}), {2: "Z", 4: "U", 5: "K"}),
    Block(0x0031, "ACME 1.0", "SAFE"),
    Block(0x0033, "ACME 1.0", "UNSAFE", frozenset({1})),
    Block(0x0035, "ACME 1.0", "PROBABLY"),
]


@pytest.mark.parametrize(
    ("group", "element", "action"),
    [
        (0x0029, 1, "K"),
        (0x0029, 2, "Z"),
        (0x0029, 3, "X"),
        (0x0029, 4, "U"),
        (0x0029, 5, "X"),  # keeping isn't an action of (0008,0307)
        (0x0031, 7, "K"),
        (0x0033, 1, "X"),
        (0x0035, 1, None),
        (0x0037, 1, None),
    ],
)
def test_an_object_may_say_which_of_its_private_attributes_are_safe(
    group: int, element: int, action: str | None
) -> None:
    assert said_action(BLOCKS, "ACME 1.0 ", group, 0x1000 | element) == action
    assert said_action(BLOCKS, "ACME", group, element) is None


def test_of_several_statements_about_one_attribute_the_strictest_counts() -> None:
    blocks = [Block(0x0031, "ACME 1.0", "SAFE"), Block(0x0031, "ACME 1.0", "UNSAFE")]
    assert said_action(blocks, "ACME 1.0", 0x0031, 1) == "X"
    assert said_action(blocks[::-1], "ACME 1.0", 0x0031, 1) == "X"


def test_what_an_object_says_about_a_listed_attribute_comes_first() -> None:
    unsafe = [Block(0x0019, "GEMS_ACQU_01", "UNSAFE")]
    assert decide("GEMS_ACQU_01", 0x0019, 0x1023, "DS") == ("K", "DS")
    assert decide("GEMS_ACQU_01", 0x0019, 0x1023, "DS", unsafe) == ("X", "DS")


def test_the_representation_has_to_be_what_the_table_says() -> None:
    assert decide("GEMS_ACQU_01", 0x0019, 0x23, "UN") == ("K", "DS")
    assert decide("GEMS_PARM_01", 0x0043, 0x27, "LO") == ("K", "LO")
    assert decide("GEMS_ACQU_01", 0x0019, 0x23, "LO") == ("X", "LO")
    assert decide("GEMS_ACQU_01", 0x0019, 0x23, "PN") == ("X", "PN")
    assert decide("NQHeader", 0x0099, 0x02, "UI") == ("U", "UI")
    assert decide("ACME 1.0", 0x0031, 1, "DA", BLOCKS) == ("C", "DA")
    assert decide("ACME 1.0", 0x0031, 1, "PN", BLOCKS) == ("X", "PN")


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("DS", "1.5"),
        ("DS", "-3.0e-3"),
        ("IS", "1000"),
        ("CS", "ORIGINAL_1"),
        ("LO", "epi2d_diff"),
        ("FL", "x"),
    ],
)
def test_plain_values_are_clean(vr: str, value: str) -> None:
    assert is_clean(vr, [value, "", " "], frozenset({"HONG"}))


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("DS", "HONG"),
        ("DS", "8501011234567"),
        ("IS", "123456789"),
        ("CS", "Hong"),
        ("CS", "HONG"),
        ("CS", "12345678"),
        ("SH", "hong 1"),
        ("LO", "KIM^GIL"),
        ("LO", "a@b"),
        ("LO", "MRN 123456"),
        ("LO", "홍길동"),
        ("LO", "x" * 129),
        ("OB", ""),
        ("UN", ""),
        ("PN", ""),
    ],
)
def test_values_that_may_identify_are_not_clean(vr: str, value: str) -> None:
    assert not is_clean(vr, ["1", value], frozenset({"HONG"}))


@given(
    st.text(max_size=20), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.sampled_from(["LO", "UN", "DS"])
)
@settings(deadline=None)
def test_unknown_creators_are_never_safe(creator: str, group: int, element: int, vr: str) -> None:
    known = {name for name, *_ in load_table()["standard"]} | {name for name, *_ in load_table()["archive"]}
    if creator.strip(" \0") not in known:
        assert decide(creator, group, element, vr, archive=True)[0] == "X"
