from __future__ import annotations

import json
from importlib.resources import files

import pytest
from fedai_site.deidentify.structured import Decision, decide, has_content, load_concepts
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS = json.loads(files("fedai_site.deidentify").joinpath("content_items.json").read_text(encoding="utf-8"))
OPTIONS = ["uids", "device", "institution", "patient", "full-dates", "modified-dates", "descriptors"]
KINDS = sorted({row[1] for row in ROWS["rows"]})
TYPES = [*KINDS, "SCOORD", "SCOORD3D", "TCOORD", "TABLE", "", "NONSENSE"]


def test_the_table_is_the_standards_current_one() -> None:
    assert ROWS["edition"] == "2026d"
    assert len(ROWS["rows"]) == 214
    assert {row[2] for row in ROWS["rows"]} == {"X", "D", "X/D"}


@pytest.mark.parametrize("row", ROWS["rows"], ids=lambda row: f"{row[0][0]} {row[1]}")
def test_each_concept_is_handled_as_the_table_says(row: tuple[list[str], str, str, str]) -> None:
    codes, value_type, basic, by_option = row
    dummy = Decision.UID if value_type in ("IMAGE", "COMPOSITE", "WAVEFORM", "UIDREF") else Decision.DUMMY
    expected = Decision.REMOVE if basic == "X" else dummy
    kinds = {"K": Decision.KEEP, "C": Decision.CLEAN}
    for code, scheme in (code.split("|") for code in codes):
        assert decide(value_type, code, scheme) is expected
        for option in by_option.split():
            name, action = option.split(":")
            is_date = value_type in ("DATE", "TIME", "DATETIME")
            assert decide(value_type, code, scheme, options=frozenset({name})) is (
                Decision.DATE if is_date else kinds[action]
            )


def test_codes_of_the_older_scheme_are_the_same_concepts() -> None:
    assert decide("TEXT", "F-02455", "SRT") is decide("TEXT", "160476009", "SCT") is Decision.REMOVE
    assert decide("TEXT", "G-C0E3", "SRT") is Decision.DUMMY


@pytest.mark.parametrize(
    ("value_type", "decision"),
    [
        ("TEXT", Decision.REMOVE),
        ("PNAME", Decision.REMOVE),
        ("DATE", Decision.REMOVE),
        ("DATETIME", Decision.REMOVE),
        ("TABLE", Decision.REMOVE),
        ("", Decision.REMOVE),
        ("IMAGE", Decision.UID),
        ("UIDREF", Decision.UID),
        ("CODE", Decision.KEEP),
        ("NUM", Decision.KEEP),
        ("CONTAINER", Decision.KEEP),
        ("SCOORD3D", Decision.KEEP),
    ],
)
def test_what_the_table_does_not_list_is_decided_by_its_value_type(
    value_type: str, decision: Decision
) -> None:
    assert decide(value_type, "123", "99LOCAL", "CONTAINS") is decision


def test_unlisted_text_stays_cleaned_only_with_the_descriptors_and_never_about_the_observer() -> None:
    options = frozenset({"descriptors"})
    assert decide("TEXT", "123", "99LOCAL", "CONTAINS", options) is Decision.CLEAN
    assert decide("TEXT", "123", "99LOCAL", "HAS OBS CONTEXT", options) is Decision.REMOVE


def test_characteristics_of_the_patient_stay_only_with_their_option() -> None:
    for code, scheme in (("121033", "DCM"), ("30525-0", "LN"), ("29463-7", "LN"), ("27113001", "SCT")):
        assert decide("NUM", code, scheme) is Decision.REMOVE
        assert decide("NUM", code, scheme, options=frozenset({"patient"})) is Decision.KEEP


@given(st.sampled_from(TYPES), st.text(max_size=8), st.text(max_size=5), st.sets(st.sampled_from(OPTIONS)))
@settings(deadline=None)
def test_no_option_keeps_a_persons_name_or_an_unlisted_text_as_it_is(
    value_type: str, code: str, scheme: str, options: set[str]
) -> None:
    decision = decide(value_type, code, scheme, "CONTAINS", frozenset(options))
    if value_type in ("PNAME", "TABLE", "", "NONSENSE"):
        assert decision is Decision.REMOVE
    if value_type == "TEXT":
        assert decision in (Decision.REMOVE, Decision.CLEAN)


def test_no_listed_person_is_kept_under_all_options_together() -> None:
    people = [(code, scheme) for code, scheme, kind in load_concepts() if kind == "PNAME"]
    assert len(people) > 5
    for code, scheme in people:
        decision = decide("PNAME", code, scheme, options=frozenset(OPTIONS))
        assert decision in (Decision.REMOVE, Decision.DUMMY)


def test_a_report_without_content_is_told() -> None:
    assert not has_content([Decision.REMOVE, Decision.REMOVE])
    assert has_content([Decision.REMOVE, Decision.KEEP])
    assert not has_content([])
