"""Each way in which an approval doesn't hold, by its reason code; nothing of the cases is read for it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fedai_site import approvals
from fedai_site.budget import Budget
from fedai_site.cohort import Cohort, select
from fedai_site.home import SiteHome
from fedai_site.permit import Permit, check_cohort, permit
from fedai_site.policy import Limits, Policy, read_policy
from homes import make_home
from studies import small_study

from fedai.errors import ConfigError, RefusedByPolicy
from fedai.signatures import fingerprint, public_key, read_key, write_key

STUDY = small_study()
NOW = datetime.now(UTC)
OPEN: dict[str, Any] = {"commercial_interest": True}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("site")
    for name in ("kim", "lee", "stranger"):
        write_key(folder / name)
    return make_home(folder, patients=12)


@pytest.fixture
def home(filled: SiteHome) -> SiteHome:
    filled.rules.unlink(missing_ok=True)
    for path in filled.approvals.rglob("*.*"):
        path.unlink()
    return filled


def key_of(home: SiteHome, name: str) -> Path:
    return home.folder.parent / name


def rule(home: SiteHome, **rules: Any) -> Policy | None:
    home.rules.write_text(json.dumps(rules))
    return read_policy(home.rules)


def say_yes(home: SiteHome, by: str = "kim", *, at: datetime = NOW, **changes: Any) -> approvals.Approval:
    cohort = select(home.folder, STUDY)
    terms = approvals.terms_of(STUDY, read_policy(home.rules), cohort, at).model_copy(update=changes)
    return approvals.sign_approval(home.approvals, STUDY, by, key_of(home, by), terms, cohort, None)


def reason(home: SiteHome) -> str:
    with pytest.raises(RefusedByPolicy) as told:
        permit(home, STUDY)
    return told.value.reason


def print_of(home: SiteHome, name: str) -> dict[str, str]:
    return {"name": name, "fingerprint": fingerprint(public_key(read_key(key_of(home, name))))}


def test_without_a_policy_an_approval_with_or_without_a_signature_is_enough(home: SiteHome) -> None:
    assert reason(home) == "NOT_APPROVED"
    approvals.approve(home.approvals, STUDY, "Dr. Who")
    assert permit(home, STUDY) == Permit()
    say_yes(home)
    assert permit(home, STUDY).until == float("inf")
    assert permit(home, STUDY).cases is None


def test_under_a_policy_a_signed_approval_gives_its_limits(home: SiteHome) -> None:
    rule(home, **OPEN, approval_days=3, minimum_cell=4, minimum_cohort=5, limits={"runs": 2})
    say_yes(home)
    allowed = permit(home, STUDY)
    assert allowed.until == pytest.approx((NOW + timedelta(days=3)).timestamp(), abs=1)
    assert (allowed.minimum_cell, allowed.minimum_cohort, allowed.limits.runs) == (4, 5, 2)
    assert allowed.cases is not None
    assert len(allowed.cases) == 24


def test_an_approval_without_a_signature_is_none_under_a_policy(home: SiteHome) -> None:
    approvals.approve(home.approvals, STUDY, "Dr. Who")
    rule(home, **OPEN)
    assert reason(home) == "UNSIGNED_APPROVAL"


def test_revoked_altered_and_never_approved_are_told_apart(home: SiteHome) -> None:
    say_yes(home)
    approvals.revoke(home.approvals, STUDY.sha256)
    assert reason(home) == "REVOKED"
    other = small_study(training={"seed": 8})
    approvals.approve(home.approvals, other, "Dr. Who")
    approvals.revoke(home.approvals, other.sha256)
    (home.approvals / "revoked").rename(home.approvals / "gone")
    assert reason(home) == "NOT_APPROVED"
    approvals.approve(home.approvals, other, "Dr. Who")
    assert reason(home) == "ALTERED"


def test_an_approval_ends_when_it_expires(home: SiteHome) -> None:
    rule(home, **OPEN, approval_days=1)
    say_yes(home, at=NOW - timedelta(days=1, seconds=1))
    assert reason(home) == "EXPIRED"
    say_yes(home)
    permit(home, STUDY)


def test_an_approval_under_another_release_or_policy_is_none(home: SiteHome) -> None:
    rule(home, **OPEN)
    say_yes(home, bundle_sha256="0" * 64)
    assert reason(home) == "RELEASE_CHANGED"
    say_yes(home)
    rule(home, **OPEN, approval_days=91)
    assert reason(home) == "POLICY_CHANGED"
    home.rules.unlink()
    assert reason(home) == "POLICY_CHANGED", "a policy that was taken away doesn't set a run free"


def test_a_rule_made_stricter_refuses_with_that_rules_reason(home: SiteHome) -> None:
    rule(home, **OPEN)
    say_yes(home)
    for rules, code in (
        ({"purposes": ["education"]}, "PURPOSE"),
        ({"minimum_cohort": 50}, "COHORT_TOO_SMALL"),
        ({"limits": {"rounds": 1}}, "TOO_MANY_ROUNDS"),
        ({"signers": [print_of(home, "lee")]}, "UNSIGNED"),
        ({"approvers": [print_of(home, "lee")]}, "UNKNOWN_APPROVER"),
    ):
        rule(home, **OPEN, **rules)
        assert reason(home) == code


def test_two_persons_sign_where_the_policy_asks_for_two(home: SiteHome) -> None:
    rule(home, **OPEN, two_persons=True, approvers=[print_of(home, "kim"), print_of(home, "lee")])
    assert say_yes(home).signatures == 1
    assert reason(home) == "SECOND_APPROVAL"
    assert say_yes(home).signatures == 1, "the same person twice is one"
    assert reason(home) == "SECOND_APPROVAL"
    second = say_yes(home, "lee", at=NOW + timedelta(seconds=5))
    assert (second.signatures, second.approved_by) == (2, "kim and lee")
    permit(home, STUDY)
    say_yes(home, "stranger")
    assert reason(home) == "UNKNOWN_APPROVER"


CHANGES = [
    {"terms": {"expires": "2999-01-01T00:00:00+00:00"}},
    {"terms": {"training_patients": 999}},
    {"terms": {"policy_sha256": ""}},
    {"marks": [{"by": "somebody else"}]},
    {"marks": [{"signature": "0" * 128}]},
    {"marks": []},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_approvals_file_that_was_changed_is_none(change: dict[str, Any], home: SiteHome) -> None:
    rule(home, **OPEN)
    say_yes(home)
    path = home.approvals / f"{STUDY.sha256}.json"
    kept = json.loads(path.read_text())
    if "terms" in change:
        kept["terms"] |= change["terms"]
    else:
        kept["marks"] = [kept["marks"][0] | mark for mark in change["marks"]]
    path.write_text(json.dumps(kept))
    assert reason(home) == "ALTERED_APPROVAL"


def test_a_cohorts_list_that_was_changed_is_none(home: SiteHome) -> None:
    rule(home, **OPEN)
    say_yes(home)
    path = home.approvals / f"{STUDY.sha256}.cohort"
    path.write_text(path.read_text() + "\n" + "0" * 32)
    assert reason(home) == "ALTERED_APPROVAL"
    path.unlink()
    assert reason(home) == "ALTERED_APPROVAL"
    rule(home, **OPEN, new_cases="allow")
    say_yes(home)
    assert permit(home, STUDY).cases is None


def test_a_wrong_policy_allows_nothing(home: SiteHome) -> None:
    approvals.approve(home.approvals, STUDY, "Dr. Who")
    home.rules.write_text("minimum_cel: 5")
    with pytest.raises(ConfigError, match="did you mean 'minimum_cell'"):
        permit(home, STUDY)


def without(cohort: Cohort, patients: int) -> Cohort:
    gone = sorted({case.patient for case in cohort.splits["train"]})[:patients]
    splits = {
        name: tuple(case for case in cases if case.patient not in gone)
        for name, cases in cohort.splits.items()
    }
    return replace(cohort, splits=splits)


def test_withdrawn_cases_are_no_fault_and_new_or_changed_ones_are(home: SiteHome) -> None:
    cohort = select(home.folder, STUDY)
    smaller = without(cohort, 2)
    allowed = Permit(minimum_cohort=3, cases=frozenset(approvals.case_marks(cohort)))
    check_cohort(allowed, cohort)
    check_cohort(allowed, smaller)
    with pytest.raises(RefusedByPolicy, match="COHORT_CHANGED"):
        check_cohort(replace(allowed, cases=frozenset(approvals.case_marks(smaller))), cohort)
    case = cohort.splits["train"][0]
    for change in ({"label": 1 - case.label}, {"sha256": "0" * 64}, {"patient": "other"}):
        train = (replace(case, **change), *cohort.splits["train"][1:])
        with pytest.raises(RefusedByPolicy, match="COHORT_CHANGED"):
            check_cohort(allowed, replace(cohort, splits={**cohort.splits, "train": train}))
    check_cohort(replace(allowed, cases=None), cohort)
    with pytest.raises(RefusedByPolicy, match="COHORT_TOO_SMALL"):
        check_cohort(replace(allowed, minimum_cohort=30), cohort)


def test_approving_again_on_the_same_basis_leaves_the_budget_spent_and_a_new_basis_does_not(
    home: SiteHome, tmp_path: Path
) -> None:
    rule(home, **OPEN, limits={"runs": 1})
    say_yes(home)
    Budget(tmp_path, permit(home, STUDY)).claim(7)
    say_yes(home, at=NOW + timedelta(minutes=1))
    with pytest.raises(RefusedByPolicy, match="RUNS_SPENT"):
        Budget(tmp_path, permit(home, STUDY)).claim(8)
    approvals.revoke(home.approvals, STUDY.sha256)
    say_yes(home, at=NOW + timedelta(minutes=2))
    Budget(tmp_path, permit(home, STUDY)).claim(8)


def budget(folder: Path, **limits: Any) -> Budget:
    return Budget(folder, Permit(id="a" * 32, limits=Limits(**limits)))


def test_a_run_counts_once_and_one_too_many_is_refused(tmp_path: Path) -> None:
    for run in (5, 6, 5, 6):
        budget(tmp_path, runs=2).claim(run)
    with pytest.raises(RefusedByPolicy, match="RUNS_SPENT"):
        budget(tmp_path, runs=2).claim(7)
    budget(tmp_path, runs=2).claim(5)


def test_hours_and_bytes_add_up_over_runs_and_restarts(tmp_path: Path) -> None:
    budget(tmp_path).spend(seconds=1800)
    budget(tmp_path, hours=1).claim(1)
    assert budget(tmp_path, hours=1).seconds_left() == 1800
    budget(tmp_path).spend(seconds=1800)
    with pytest.raises(RefusedByPolicy, match="HOURS_SPENT"):
        budget(tmp_path, hours=1).claim(1)
    budget(tmp_path).spend(sent=900_000)
    budget(tmp_path, megabytes=1).check_bytes(100_000)
    with pytest.raises(RefusedByPolicy, match="BYTES_SPENT"):
        budget(tmp_path, megabytes=1).check_bytes(100_001)
    budget(tmp_path).spend(sent=100_000)
    with pytest.raises(RefusedByPolicy, match="BYTES_SPENT"):
        budget(tmp_path, megabytes=1).claim(1)


def test_an_approval_without_limits_spends_and_one_without_a_signature_keeps_no_account(
    tmp_path: Path,
) -> None:
    budget(tmp_path).claim(1)
    assert budget(tmp_path).seconds_left() == float("inf")
    Budget(tmp_path / "plain", Permit()).spend(sent=5)
    assert not (tmp_path / "plain").exists()
