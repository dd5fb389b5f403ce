"""What this hospital allows: `policy.yaml` in the home, written by the hospital and sent by nobody.

Each rule is a clause that a study keeps or breaks; a broken one refuses the study with that clause's reason
code. Without the file only the approval counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, Field

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.release import BUNDLE_SHA256
from fedai.signatures import StudySignature, fingerprint
from fedai.study import Name, Purpose, PurposeKind, Study
from fedai.subgroups import Variable
from fedai.yamlfile import Frozen, load
from fedai_site.retention import Retention

FINGERPRINT = r"^([0-9a-f]{2}:){31}[0-9a-f]{2}$"


def _all_different(people: tuple[Person, ...]) -> tuple[Person, ...]:
    if len({person.fingerprint for person in people}) < len(people):
        raise ValueError("the same fingerprint stands here twice")
    return people


class Person(Frozen):
    """Somebody who may sign, by the fingerprint that `fedai study key` printed."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    fingerprint: Annotated[str, Field(pattern=FINGERPRINT)]


People = Annotated[tuple[Person, ...], Field(max_length=100), AfterValidator(_all_different)]


class Limits(Frozen):
    """Budgets of one approval; what is left out isn't limited.

    `rounds`: of a run. `runs`, `hours` (of work here), `megabytes` (that leave): together, for one approval.
    `update_norm`: largest L2 norm of an update's parameters.
    """

    rounds: Annotated[int, Field(ge=1)] | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    megabytes: Annotated[float, Field(gt=0)] | None = None
    update_norm: Annotated[float, Field(gt=0)] | None = None


class Epsilon(Frozen):
    """The most that (epsilon, delta) differential privacy may spend."""

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]


class Privacy(Frozen):
    """What must protect an update. This release has neither, so what is required refuses every study."""

    secure_aggregation: Literal["required", "not_required"] = "not_required"
    differential_privacy: Epsilon | Literal["not_required"] = "not_required"


class Policy(Frozen):
    """policy.yaml. An empty list of signers, approvers, purposes or tasks accepts any.

    `minimum_cohort`: training patients. `minimum_cell`: patients of a split without which nothing of it
    leaves. `new_cases: refuse`: cases that came after the approval need a new one (withdrawn ones don't).
    `retention` deletes (expiry.py).
    `subgroups`: by what test patients may be told apart, where a study asks for it; nothing else is.
    """

    signers: People = ()
    approvers: People = ()
    two_persons: bool = False
    approval_days: Annotated[float, Field(gt=0, le=3660)] = 90
    purposes: tuple[PurposeKind, ...] = ()
    commercial_interest: bool = False
    ethics_number: bool = False
    tasks: tuple[Name, ...] = ()
    minimum_cohort: Annotated[int, Field(ge=wire.MINIMUM_CELL)] = wire.MINIMUM_CELL
    minimum_cell: Annotated[int, Field(ge=wire.MINIMUM_CELL)] = wire.MINIMUM_CELL
    new_cases: Literal["refuse", "allow"] = "refuse"
    subgroups: Annotated[tuple[Variable, ...], Field(max_length=3)] = ()
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    retention: Retention = Retention()

    @staticmethod
    def cross_checks(data: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
        """Rules that span keys: (place, what is wrong)."""
        approvers = data.get("approvers")
        if data.get("two_persons") is True and not (isinstance(approvers, list) and len(approvers) > 1):
            return [(("two_persons",), "two persons approve, so name at least two under `approvers`")]
        return []

    @cached_property
    def sha256(self) -> str:
        """Content hash (hex) of every rule, defaults written out, but those of rules that came later."""
        later, default = ("subgroups", "privacy", "retention"), type(self).model_fields
        unsaid = {name for name in later if getattr(self, name) == default[name].default}
        return hashlib.sha256(self.model_dump_json(exclude=unsaid).encode()).hexdigest()


@dataclass(frozen=True)
class Clause:
    """One rule held against a study: `reason` is the code of a refusal, `said` both sides of it in words."""

    reason: str
    holds: bool
    said: str


def read_policy(path: Path) -> Policy | None:
    """The policy of a home; None where it has none.

    Raises ConfigError with every problem's place: then nothing is allowed.
    """
    return load(path, Policy) if path.exists() else None


def clauses(
    policy: Policy, study: Study, signature: StudySignature | None, patients: int, today: date
) -> list[Clause]:
    """Every rule held against a study and the number of its training patients here."""
    return [
        *_signed(policy, study, signature),
        *floor(policy),
        *_purpose_clauses(policy, study),
        Clause(
            "ETHICS",
            not policy.ethics_number or bool(_valid_numbers(study, today)),
            f"ethics numbers that hold today: {', '.join(_valid_numbers(study, today)) or 'none'}"
            f"{'' if policy.ethics_number else ' (not asked for)'}",
        ),
        _within("TASK", "task", study.task.kind, policy.tasks),
        Clause(
            "COHORT_TOO_SMALL",
            patients >= policy.minimum_cohort,
            f"{patients} training patients; at least {policy.minimum_cohort}",
        ),
        Clause(
            "TOO_MANY_ROUNDS",
            policy.limits.rounds is None or study.training.rounds <= policy.limits.rounds,
            f"{study.training.rounds} rounds; at most {policy.limits.rounds or 'any number'}",
        ),
    ]


def floor(policy: Policy) -> Iterator[Clause]:
    """What must protect an update, and what this release has: neither."""
    asked, bound = policy.privacy.secure_aggregation, policy.privacy.differential_privacy
    has_none = "this release has none"
    yield Clause("SECURE_AGGREGATION", asked != "required", f"secure aggregation {asked}; {has_none}")
    said = bound if isinstance(bound, str) else f"({bound.epsilon:g}, {bound.delta:g}) required"
    yield Clause("DIFFERENTIAL_PRIVACY", isinstance(bound, str), f"differential privacy {said}; {has_none}")


def _signed(policy: Policy, study: Study, signature: StudySignature | None) -> Iterator[Clause]:
    names = {person.fingerprint: person.name for person in policy.signers}
    known = ", ".join(names.values()) or "anybody, or nobody"
    yield Clause("UNSIGNED", bool(signature) or not names, f"{'' if signature else 'not '}signed; by {known}")
    if signature is None:
        return
    yield Clause("ALTERED", signature.study_sha256 == study.sha256, "the signature is of this very study")
    yield Clause("BAD_SIGNATURE", signature.holds(), "the signature is that of its key")
    print_ = fingerprint(signature.key)
    who = names.get(print_, f"a key that is not listed, {print_[:11]}...")
    yield Clause("UNKNOWN_SIGNER", not names or print_ in names, f"signed by {who}; accepted: {known}")


def check_signature(study: Study, signature: StudySignature | None) -> None:
    """Raise RefusedByPolicy where there is a signature beside the study, and it is not of this study."""
    for clause in _signed(Policy(), study, signature):
        _require(clause, study)


def check_approver(policy: Policy | None, key: str) -> None:
    """Raise RefusedByPolicy where the policy lists approvers, and not the key of this fingerprint."""
    accepted = {person.fingerprint for person in policy.approvers} if policy else set()
    if accepted and key not in accepted:
        raise RefusedByPolicy(
            f"the policy doesn't list the key {key}",
            hint="sign with --key and a key that stands under `approvers` in policy.yaml",
            reason="UNKNOWN_APPROVER",
        )


def _purpose_clauses(policy: Policy, study: Study) -> Iterator[Clause]:
    declared = study.purpose if isinstance(study.purpose, Purpose) else None
    yield _within("PURPOSE", "purpose", declared.kind if declared else None, policy.purposes)
    interest = declared.commercial_interest if declared else None
    said = {True: "declared", False: "declared as none", None: "not declared"}[interest]
    accepted = "accepted" if policy.commercial_interest else "not accepted"
    yield Clause(
        "COMMERCIAL_INTEREST",
        policy.commercial_interest or interest is False,
        f"commercial interest {said}; it is {accepted}",
    )


def _within(reason: str, what: str, given: str | None, accepted: Sequence[str]) -> Clause:
    said = f"{what} {given or 'not declared'}; accepted: {', '.join(accepted) or 'any'}"
    return Clause(reason, not accepted or given in accepted, said)


def _valid_numbers(study: Study, today: date) -> list[str]:
    numbers = study.purpose.ethics if isinstance(study.purpose, Purpose) else ()
    return [f"{one.board} {one.number}" for one in numbers if date.fromisoformat(one.expires) >= today]


def check_clauses(found: Sequence[Clause], study: Study) -> None:
    """Raise RefusedByPolicy with the reason of the first broken clause; the message has a line for each."""
    broken = [clause for clause in found if not clause.holds]
    if len(broken) > 1:
        _refuse(study, broken[0].reason, "".join(f"\n  {one.reason}: {one.said}" for one in broken))
    for clause in broken:
        _require(clause, study)


def _require(clause: Clause, study: Study) -> None:
    if not clause.holds:
        _refuse(study, clause.reason, f" {clause.said}")


def _refuse(study: Study, reason: str, said: str) -> NoReturn:
    raise RefusedByPolicy(
        f"the study {study.name} {study.sha256[:12]} breaks this site's rules:{said}",
        hint="`fedai site review HOME STUDY.yaml` shows each rule",
        reason=reason,
    )


def check_bundle(bundle_sha256: str) -> None:
    """Raise RefusedByPolicy unless the run's app bundle is the code-free one of this very release."""
    if bundle_sha256 != BUNDLE_SHA256:
        raise RefusedByPolicy(
            "the run carries a bundle that is not this release's; it was not downloaded",
            hint="server and site must run the same release of fedai",
            reason="BUNDLE",
        )


def check_named(study: Study, site: str) -> None:
    """Raise RefusedByPolicy unless the study names this site."""
    if site not in study.sites:
        raise RefusedByPolicy(
            f"the study {study.name} doesn't name this site ({site})",
            hint="ask the coordinator",
            reason="NOT_NAMED",
        )
