from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError
from studies import small_study

from fedai.datause import (
    ACCEPTABLE,
    MODIFIERS,
    PERMISSIONS,
    TERMS,
    UNDECLARED,
    VALUES,
    DataUse,
    Question,
    Term,
    forbidding,
    parse_scope,
)
from fedai.study import parse_study

TODAY = date(2026, 5, 1)


def use(**changes: Any) -> DataUse:
    """A study on health that asks for nothing unusual."""
    plain = {"use": "HMB", "commercial": False, "not_for_profit": True, "methods": False}
    return DataUse.model_validate({**plain, **changes})


def forbids(scope: str, asked: DataUse, *, sites: tuple[str, ...] = ("north", "east")) -> list[str]:
    return list(forbidding(parse_scope(scope), Question(asked, "cxr", sites, TODAY)))


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("NRES", {"GRU", "HMB", "DS", "POA", "CC"}),
        ("GRU", {"GRU", "HMB", "DS", "POA"}),
        ("HMB", {"HMB", "DS"}),
        ("HMB; CC", {"HMB", "DS", "CC"}),
        ("DS=MONDO:0005070", {"DS"}),
        ("DS=MONDO:1", set()),
        ("POA", {"POA"}),
    ],
)
def test_a_permission_allows_what_duo_says_it_does(scope: str, allowed: set[str]) -> None:
    for wanted in ("GRU", "HMB", "DS", "POA", "CC"):
        asked = use(use=wanted, diseases=["MONDO:0005070"] if wanted == "DS" else [])
        assert (forbids(scope, asked) == []) == (wanted in allowed), wanted


@pytest.mark.parametrize(
    ("modifier", "yes", "no"),
    [
        ("NMDS", use(), use(methods=True)),
        ("NPU", use(), use(not_for_profit=False)),
        ("NCU", use(not_for_profit=False), use(commercial=True)),
        ("NPUNCU", use(), use(not_for_profit=False)),
        ("NPUNCU", use(), use(commercial=True)),
        ("IRB", use(ethics_approvals=["2026-017"]), use()),
        ("GS=KR|JP", use(countries=["KR"]), use(countries=["KR", "US"])),
        ("GS=KR", use(countries=["KR"]), use()),
        ("US=kim", use(users=["kim"]), use(users=["lee"])),
        ("PS=cxr", use(), None),
        ("IS=north|east|south", use(), use(institutions=["elsewhere"])),
        ("IS=here", use(institutions=["here"]), use()),
        ("TS=2026-05-01", use(), None),
        ("PUB", use(accepts=["PUB"]), use()),
        ("RTN", use(accepts=["DUO:0000029"]), use()),
        ("RS=lung", use(accepts=["RS=lung"]), use(accepts=["RS=heart"])),
        ("COL=the registry", use(accepts=["COL=the registry"]), use()),
        ("MOR=2027-01-01", use(accepts=["MOR=2027-01-01"]), use(accepts=["MOR=2026-01-01"])),
        ("GSO", use(accepts=["GSO"]), use()),
        ("NPOA", use(), UNDECLARED),
        ("CC", use(), None),
    ],
)
def test_a_modifier_forbids_what_it_says(modifier: str, yes: DataUse, no: DataUse | None) -> None:
    assert forbids(f"NRES; {modifier}", yes) == []
    if no is not None:
        assert forbids(f"NRES; {modifier}", no) == [modifier.partition("=")[0]]


def test_a_time_limit_and_a_project_end_what_they_limit() -> None:
    assert forbids("GRU; TS=2026-04-30; PS=other", use()) == ["TS", "PS"]


def test_a_study_that_says_nothing_needs_the_widest_consent() -> None:
    assert forbids("GRU", UNDECLARED) == []
    for scope in ("HMB", "GRU; NCU", "GRU; NPU", "GRU; NMDS", "GRU; IRB", "DS=MONDO:1"):
        assert forbids(scope, UNDECLARED), scope


def test_every_term_is_decided_in_one_way() -> None:
    groups = [set(PERMISSIONS), set(ACCEPTABLE), set(MODIFIERS)]
    assert set.union(*groups) == set(TERMS)
    assert sum(map(len, groups)) == len(TERMS)
    assert set(VALUES) <= set(TERMS)
    assert len({identifier for identifier, _ in TERMS.values()}) == len(TERMS)


def test_codes_and_ids_are_the_same() -> None:
    assert parse_scope("DUO:0000042; DUO_0000046;ts=2027-12-31") == parse_scope("gru;NCU; TS=2027-12-31")
    assert parse_scope("GRU; IS=a| b") == (Term("GRU"), Term("IS", ("a", "b")))


@pytest.mark.parametrize(
    ("scope", "problem"),
    [
        ("", "no permission; exactly one of NRES, GRU, HMB, DS, POA is needed"),
        ("NCU", "no permission"),
        ("GRU; HMB", "GRU and HMB; exactly one of"),
        ("GRU; NCU; NCU", "NCU is there twice"),
        ("GRU; NPUNC", "term 2 is none of DUO's (did you mean 'NPUNCU'?)"),
        ("DUO:0000041", "term 1 is none of DUO's (did you mean 'DUO:000004"),
        ("GRU; TS", "term 2 is TS, which needs a value: TS=a last day, for example 2027-12-31"),
        ("GRU; TS=36 months", "term 2 is TS, whose value is no date: write TS=2027-12-31"),
        ("GRU; NCU=yes", "term 2 is NCU, which takes no value"),
        ("GRU; IS=a\x07", "term 2 is IS, whose value has odd characters"),
    ],
)
def test_a_wrong_scope_says_what_is_wrong(scope: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_scope(scope)
    assert problem in str(caught.value)


def test_all_problems_of_a_scope_are_told_and_its_text_is_not() -> None:
    with pytest.raises(ValueError) as caught:
        parse_scope("GRX; Hong Gildong; TS=MRN-4711")
    assert "term 1" in str(caught.value)
    assert "term 2" in str(caught.value)
    assert "term 3" in str(caught.value)
    assert "Hong" not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"use": "HMBB"}, "did you mean 'HMB'?"),
        ({"use": "DS"}, "`use: DS` and `diseases` belong together"),
        ({"diseases": ["MONDO:1"]}, "`use: DS` and `diseases` belong together"),
        ({"accepts": ["PUBB"]}, "did you mean 'PUB'?"),
        ({"accepts": ["NCU"]}, "NCU is nothing to accept"),
    ],
)
def test_a_wrong_data_use_says_what_is_wrong(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        use(**changes)
    assert problem in str(caught.value)


def test_purpose_and_data_use_must_not_contradict_each_other() -> None:
    purpose = {"statement": "Tests.", "commercial_interest": True}
    with pytest.raises(ValidationError, match="the purpose names a commercial interest"):
        small_study(purpose=purpose, data_use=use().model_dump(mode="json"))
    assert small_study(purpose=purpose, data_use=use(commercial=True).model_dump(mode="json")).data_use


def test_a_study_without_data_use_keeps_its_text_and_its_hash() -> None:
    plain = small_study()
    assert "data_use" not in plain.canonical()
    assert parse_study(plain.canonical()) == plain
    declared = small_study(data_use=use().model_dump(mode="json"))
    assert parse_study(declared.canonical()).data_use == use()
    assert declared.sha256 != plain.sha256
