from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fedai_site.policy import (
    Policy,
    check_approver,
    check_bundle,
    check_clauses,
    check_named,
    check_signature,
    clauses,
    floor,
    read_policy,
)
from studies import small_study

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.release import BUNDLE_SHA256
from fedai.signatures import StudySignature, fingerprint, sign_study, write_key
from fedai.study import Study
from fedai.yamlfile import FileProblems

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.now(UTC).date()
STUDY = small_study()
NUMBER = {"board": "SNUH IRB", "number": "2601-001", "expires": "2999-12-31"}
DECLARED = {
    "kind": "method_development", "statement": "Tests.", "commercial_interest": False,
    "sponsors": ["nobody"], "ethics": [NUMBER],
}  # fmt: skip


def declared(**changes: Any) -> Study:
    return small_study(purpose=DECLARED | changes)


def broken(policy: dict[str, Any], study: Study = STUDY, signed: Any = None, patients: int = 9) -> list[str]:
    """Reason codes of the clauses that don't hold."""
    found = clauses(Policy.model_validate(policy), study, signed, patients, TODAY)
    return [clause.reason for clause in found if not clause.holds]


HASH_BEFORE = "e901239c1f5fe3fa4ec69cc0c16cb40ef8ecf287ba899001ff1314509afe4a0b"
ANY = {"commercial_interest": True}


@pytest.fixture
def signed(tmp_path: Path) -> StudySignature:
    write_key(tmp_path / "key")
    return sign_study(tmp_path / "study.yaml", STUDY.sha256, tmp_path / "key")


def listed(*signatures: StudySignature) -> list[dict[str, str]]:
    return [{"name": f"N{n}", "fingerprint": fingerprint(one.key)} for n, one in enumerate(signatures)]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/policies").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_policies_under_configs_are_sound(path: Path) -> None:
    assert read_policy(path) is not None


def test_a_home_without_a_policy_has_none(tmp_path: Path) -> None:
    assert read_policy(tmp_path / "policy.yaml") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("purpose: [education]", "1:1: purpose: no such key (did you mean 'purposes'?)"),
        ("limits: {round: 3}", "1:10: limits.round: no such key (did you mean 'rounds'?)"),
        ("minimum_cell: 2", "1:15: minimum_cell: input should be greater than or equal to 3"),
        ("two_persons: true", "1:14: two_persons: two persons approve, so name at least two"),
        ("signers: [{name: a, fingerprint: ab}]", "1:34: signers[0].fingerprint: string should match"),
        (
            "retention: {originals: 0}",
            "1:24: retention.originals: input should be greater than or equal to 1",
        ),
        ("privacy: {secure_aggregation: maybe}", "1:31: privacy.secure_aggregation: input should be"),
        ("purposes: [war]", "1:12: purposes[0]: input should be 'method_development'"),
    ],
)
def test_a_wrong_policy_is_told_with_its_place_and_allows_nothing(
    text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(FileProblems) as told:
        read_policy(tmp_path / "policy.yaml")
    assert f"policy.yaml:{problem}" in str(told.value)


def test_any_rule_that_changes_changes_the_policys_hash() -> None:
    rules: list[dict[str, Any]] = [
        {}, {"approval_days": 91}, {"purposes": ["education"]}, {"commercial_interest": True},
        {"ethics_number": True}, {"tasks": ["x"]}, {"minimum_cohort": 4}, {"minimum_cell": 4},
        {"new_cases": "allow"}, {"limits": {"runs": 1}}, {"limits": {"rounds": 1}}, {"limits": {"hours": 1}},
        {"limits": {"megabytes": 1}}, {"limits": {"update_norm": 1}}, {"retention": {"runs": 30}},
        {"privacy": {"secure_aggregation": "required"}},
        {"privacy": {"differential_privacy": {"epsilon": 1, "delta": 1e-5}}},
    ]  # fmt: skip
    assert len({Policy.model_validate(rule).sha256 for rule in rules}) == len(rules)


def test_a_policy_that_does_not_say_later_rules_keeps_the_hash_it_had() -> None:
    """Else every approval would end with an update of fedai. The hash is one that the release before gave."""
    assert Policy().sha256 == HASH_BEFORE
    unsaid = {"privacy": {"secure_aggregation": "not_required"}, "retention": {}}
    assert Policy.model_validate(unsaid).sha256 == HASH_BEFORE


def test_protection_that_this_release_lacks_refuses_every_study() -> None:
    assert broken(ANY | {"privacy": {"secure_aggregation": "required"}}) == ["SECURE_AGGREGATION"]
    bound = {"epsilon": 3, "delta": 1e-5}
    assert broken(ANY | {"privacy": {"differential_privacy": bound}}) == ["DIFFERENTIAL_PRIVACY"]
    assert broken(ANY | {"privacy": {"differential_privacy": "not_required"}}) == []
    said = {clause.reason: clause.said for clause in floor(Policy())}
    assert said["SECURE_AGGREGATION"] == "secure aggregation not_required; this release has none"


def test_a_study_that_says_nothing_of_its_interests_is_refused_unless_they_are_accepted() -> None:
    assert broken({}) == broken({}, declared(commercial_interest=True)) == ["COMMERCIAL_INTEREST"]
    assert broken({}, declared()) == broken(ANY) == broken(ANY, declared(commercial_interest=True)) == []


def test_only_accepted_purposes_pass() -> None:
    rules = {"purposes": ["education", "quality_assurance"]}
    assert broken(rules, declared(kind="quality_assurance")) == []
    assert broken(rules, declared()) == broken(rules, declared(kind=None)) == ["PURPOSE"]
    assert broken(rules | ANY) == ["PURPOSE"]


def test_an_ethics_number_counts_until_its_last_day() -> None:
    rules = {"ethics_number": True}
    assert broken(rules, declared()) == []
    assert broken(rules, declared(ethics=[NUMBER | {"expires": TODAY.isoformat()}])) == []
    assert broken(rules, declared(ethics=[NUMBER | {"expires": "2025-01-31"}, NUMBER])) == []
    assert broken(rules, declared(ethics=[NUMBER | {"expires": "2025-01-31"}])) == ["ETHICS"]
    assert broken(rules, declared(ethics=[])) == ["ETHICS"]
    assert broken(rules | ANY) == ["ETHICS"]


def test_tasks_cohort_and_rounds_are_held_against_the_rules() -> None:
    assert broken(ANY | {"tasks": ["segmentation"]}) == ["TASK"]
    assert broken(ANY | {"minimum_cohort": 9}) == []
    assert broken(ANY | {"minimum_cohort": 10}) == ["COHORT_TOO_SMALL"]
    assert broken(ANY | {"limits": {"rounds": 2}}) == []
    assert broken(ANY | {"limits": {"rounds": 1}}) == ["TOO_MANY_ROUNDS"]


def test_unsigned_altered_and_strangers_studies_have_reasons_of_their_own(
    signed: StudySignature, tmp_path: Path
) -> None:
    rules = ANY | {"signers": listed(signed)}
    assert broken(rules, signed=signed) == []
    assert broken(rules) == ["UNSIGNED"]
    assert broken(rules, small_study(purpose="Tests, "), signed) == ["ALTERED"]
    write_key(tmp_path / "stranger")
    theirs = sign_study(tmp_path / "study.yaml", STUDY.sha256, tmp_path / "stranger")
    assert broken(rules, signed=theirs) == ["UNKNOWN_SIGNER"]
    forged = theirs.model_copy(update={"key": signed.key})
    assert broken(rules, signed=forged) == ["BAD_SIGNATURE"]
    assert broken(ANY, signed=theirs) == [], "without a list anybody may sign"


def test_a_signature_of_another_study_is_refused_whatever_the_rules(signed: StudySignature) -> None:
    check_signature(STUDY, signed)
    check_signature(STUDY, None)
    with pytest.raises(RefusedByPolicy, match="ALTERED"):
        check_signature(small_study(version=2), signed)
    with pytest.raises(RefusedByPolicy, match="BAD_SIGNATURE"):
        check_signature(STUDY, signed.model_copy(update={"signature": "0" * 128}))


def test_a_refusal_names_every_broken_rule_and_has_the_first_ones_reason() -> None:
    found = clauses(Policy(ethics_number=True, minimum_cohort=50), STUDY, None, 9, TODAY)
    with pytest.raises(RefusedByPolicy) as told:
        check_clauses(found, STUDY)
    assert told.value.reason == "COMMERCIAL_INTEREST"
    assert "ethics numbers that hold today: none" in told.value.message
    assert "9 training patients; at least 50" in told.value.message
    lines = told.value.message.splitlines()
    assert lines[0].endswith("breaks this site's rules:")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "  COMMERCIAL_INTEREST",
        "  ETHICS",
        "  COHORT_TOO_SMALL",
    ]
    check_clauses([clause for clause in found if clause.holds], STUDY)


def test_only_a_listed_key_may_approve_where_there_is_a_list(signed: StudySignature) -> None:
    check_approver(None, "any")
    check_approver(Policy(), "any")
    policy = Policy.model_validate({"approvers": listed(signed)})
    check_approver(policy, fingerprint(signed.key))
    with pytest.raises(RefusedByPolicy, match="UNKNOWN_APPROVER"):
        check_approver(policy, fingerprint("1" * 64))


@pytest.mark.parametrize(
    "bundle", ["", "0" * 64, BUNDLE_SHA256.upper(), BUNDLE_SHA256 + " ", BUNDLE_SHA256[:-1]]
)
def test_any_bundle_but_this_releases_is_refused(bundle: str) -> None:
    check_bundle(BUNDLE_SHA256)
    with pytest.raises(RefusedByPolicy, match="not this release's"):
        check_bundle(bundle)


def test_a_study_that_does_not_name_the_site_is_refused() -> None:
    check_named(STUDY, "north")
    with pytest.raises(RefusedByPolicy, match="doesn't name this site"):
        check_named(STUDY, "west")


@pytest.mark.parametrize(
    ("purpose", "problem"),
    [
        ({"statement": "x"}, "purpose.commercial_interest: is missing"),
        (DECLARED | {"sponsor": []}, "purpose.sponsor: no such key (did you mean 'sponsors'?)"),
        ({"ethics": [NUMBER | {"expires": "soon"}]}, "purpose.ethics[0].expires: write it as a quoted date"),
        ({"ethics": [{"bord": "x"}]}, "purpose.ethics[0].bord: no such key (did you mean 'board'?)"),
        ("", "purpose: string should have at least 1 character"),
    ],
)  # fmt: skip
def test_a_wrong_purpose_is_told_with_its_place(purpose: Any, problem: str) -> None:
    import json

    from studies import SMALL

    from fedai.yamlfile import parse

    with pytest.raises(ConfigError) as told:
        parse(json.dumps(SMALL | {"purpose": purpose}).encode(), Study, "study.yaml")
    assert problem in str(told.value)


def test_a_purpose_in_words_alone_keeps_its_hash_and_its_statement() -> None:
    assert '"purpose":"Tests."' in STUDY.canonical()
    assert STUDY.statement == declared().statement == "Tests."


def test_a_policy_that_tells_of_no_subgroup_keeps_its_hash() -> None:
    before = json.loads(Policy().model_dump_json())
    for later in ("subgroups", "privacy", "retention"):
        del before[later]
    written = json.dumps(before, separators=(",", ":"), ensure_ascii=False)
    assert Policy().sha256 == hashlib.sha256(written.encode()).hexdigest()
    assert Policy(subgroups=("sex",)).sha256 != Policy().sha256
