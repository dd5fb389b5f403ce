"""Whether a run may go on here, asked at each task and again at the door: approval, policy, budgets.

Reads policy, approvals and what was spent; no case. Everything that is checked refuses with a reason code of
its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.release import BUNDLE_SHA256
from fedai.study import Study
from fedai.subgroups import Variable
from fedai_site import approvals
from fedai_site.approvals import Kept, Terms
from fedai_site.policy import Limits, Policy, check_clauses, check_named, clauses, read_policy

if TYPE_CHECKING:
    from fedai_site.cohort import Cohort
    from fedai_site.home import SiteHome

HINT = "read it, then `fedai site approve HOME STUDY.yaml`"


@dataclass(frozen=True)
class Permit:
    """What an approval allows. `id` counts what is spent; `until`: Unix time; `cases`: the only ones that
    may be used, None for any; `subgroups`: those that may be told of.
    """

    id: str = ""
    until: float = float("inf")
    minimum_cohort: int = 0
    minimum_cell: int = wire.MINIMUM_CELL
    limits: Limits = field(default_factory=Limits)
    cases: frozenset[str] | None = None
    subgroups: tuple[Variable, ...] = ()


def permit(home: SiteHome, study: Study) -> Permit:
    """Raise RefusedByPolicy unless this site's approval of exactly this study holds now, under the policy
    as it is now; ConfigError where policy.yaml is wrong.
    """
    check_named(study, home.settings.name)
    policy = read_policy(home.rules)
    kept = approvals.find(home.approvals, study)
    if kept is None:
        _refuse_unapproved(home, study)
    if kept.terms is None:
        if policy is not None:
            _refuse(study, "UNSIGNED_APPROVAL", "was approved without a signature, which the policy asks for")
        return Permit()
    return _permit(home, study, kept, kept.terms, policy)


def _permit(home: SiteHome, study: Study, kept: Kept, terms: Terms, policy: Policy | None) -> Permit:
    signers = set(approvals.signers_of(kept))
    if terms.study_sha256 != study.sha256 or not signers:
        _refuse(study, "ALTERED_APPROVAL", "has an approval that was changed since it was signed")
    if policy is not None:
        today = datetime.now(UTC).date()
        check_clauses(clauses(policy, study, kept.signature, terms.training_patients, today), study)
        _check_approvers(study, policy, signers)
    if terms.until <= time.time():
        _refuse(study, "EXPIRED", f"was approved until {terms.expires}")
    if terms.bundle_sha256 != BUNDLE_SHA256:
        _refuse(study, "RELEASE_CHANGED", "was approved under another release of fedai")
    if terms.policy_sha256 != (policy.sha256 if policy else ""):
        _refuse(study, "POLICY_CHANGED", "was approved under another policy than this home's")
    if policy is None:
        return Permit(terms.id, terms.until)
    cases = approvals.snapshot(home.approvals, terms) if policy.new_cases == "refuse" else None
    least = (policy.minimum_cohort, policy.minimum_cell)
    return Permit(terms.id, terms.until, *least, policy.limits, cases, policy.subgroups)


def _check_approvers(study: Study, policy: Policy, signers: set[str]) -> None:
    accepted = {person.fingerprint for person in policy.approvers}
    if accepted and not signers <= accepted:
        _refuse(study, "UNKNOWN_APPROVER", "was approved with a key that the policy doesn't list")
    if policy.two_persons and len(signers) < 2:
        _refuse(study, "SECOND_APPROVAL", "waits for a second person's approval")


def _refuse_unapproved(home: SiteHome, study: Study) -> NoReturn:
    if approvals.rejection(home.approvals, study) is not None:
        _refuse(study, "REJECTED", "was looked at here, and the answer was no")
    if approvals.is_revoked(home.approvals, study):
        _refuse(study, "REVOKED", "was approved, and the approval was revoked")
    versions = {(one.study_name, one.version) for one in approvals.approvals(home.approvals)}
    if (study.name, study.version) in versions:
        _refuse(
            study, "ALTERED", "is not approved here: what was approved under this name and version is another"
        )
    _refuse(study, "NOT_APPROVED", "is not approved here")


def _refuse(study: Study, reason: str, what: str) -> NoReturn:
    raise RefusedByPolicy(f"the study {study.name} {study.sha256[:12]} {what}", hint=HINT, reason=reason)


def check_cohort(allowed: Permit, cohort: Cohort) -> None:
    """Raise RefusedByPolicy where the cohort, as it is now, is smaller than the policy asks, or holds a case
    that wasn't in it when the study was approved. Fewer cases than then are no fault: patients may withdraw.
    """
    patients = approvals.training_patients(cohort)
    if patients < allowed.minimum_cohort:
        raise RefusedByPolicy(
            f"{patients} training patients; this site's policy asks for {allowed.minimum_cohort}",
            reason="COHORT_TOO_SMALL",
        )
    if allowed.cases is not None and not allowed.cases.issuperset(approvals.case_marks(cohort)):
        raise RefusedByPolicy(
            "there are cases that weren't in the cohort when the study was approved",
            hint="approve it again, or set `new_cases: allow` in policy.yaml",
            reason="COHORT_CHANGED",
        )
