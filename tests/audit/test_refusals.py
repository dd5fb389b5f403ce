"""What a site's policy or approval doesn't allow is refused with a reason of its own, and no case is read.

The agent is real, the home is real and filled; only the connection is replaced by one on which a task lies
ready. Reads are counted by an audit hook, as those of whole processes are in test_unapproved.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fedai_site import approvals
from fedai_site.agent import Agent
from fedai_site.budget import Budget
from fedai_site.cohort import select
from fedai_site.fleet import Envelope, Parcel, RunFacts
from fedai_site.home import SiteHome
from fedai_site.permit import permit
from fedai_site.policy import read_policy
from flwr.app import Message
from homes import make_home
from replies_to import message_of, task_of
from studies import SMALL, small_study

from fedai.cli.app import run
from fedai.ledger import Ledger
from fedai.release import BUNDLE_SHA256
from fedai.signatures import StudySignature, fingerprint, public_key, read_key, sign_study, write_key
from fedai.study import Study

READS = {"open", "sqlite3.connect", "os.listdir", "os.scandir"}
CASE_DATA = ("/clean", "/cache", "/catalogue.sqlite")
PURPOSE = {"kind": "method_development", "statement": "Tests.", "commercial_interest": False}
STUDY = small_study(purpose=PURPOSE)
NOW = datetime.now(UTC)
seen: list[str] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in READS and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        if any(part in path for part in CASE_DATA):
            seen.append(path)


sys.addaudithook(_hear)


@dataclass
class Line:
    """A connection on which one task of a study lies ready."""

    study: str

    def facts_of(self, run_id: int) -> RunFacts:
        return RunFacts(run_id, BUNDLE_SHA256, self.study)

    def fetch(self, envelope: Envelope, limit: int) -> Message:
        return envelope.head


def asked(home: SiteHome, study: str = STUDY.canonical(), run_id: int = 7) -> Parcel:
    """What a fresh agent would send for `ready`."""
    task = task_of("ready", study=STUDY.sha256, run=f"run-{run_id}")
    agent = Agent(home, threading.Event(), tell=lambda _: None)
    return agent._answer(Line(study), Envelope(message_of(task, run_id), None))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("site")
    for name in ("coordinator", "stranger", "engineer", "officer"):
        write_key(folder / name)
    return make_home(folder, patients=28)


@pytest.fixture
def home(filled: SiteHome) -> SiteHome:
    filled.rules.unlink(missing_ok=True)
    for folder in (filled.approvals, filled.runs):
        for path in folder.rglob("*.*"):
            path.unlink()
    for path in filled.runs.rglob("run-id"):
        path.unlink()
    return filled


def key_of(home: SiteHome, name: str) -> Path:
    return home.folder.parent / name


def print_of(home: SiteHome, *names: str) -> list[dict[str, str]]:
    return [
        {"name": name, "fingerprint": fingerprint(public_key(read_key(key_of(home, name))))} for name in names
    ]


def rule(home: SiteHome, **rules: Any) -> None:
    home.rules.write_text(json.dumps({"signers": print_of(home, "coordinator"), **rules}))


def signature_of(home: SiteHome, by: str = "coordinator", study: Study = STUDY) -> StudySignature:
    return sign_study(key_of(home, "study.yaml"), study.sha256, key_of(home, by))


def say_yes(home: SiteHome, signature: StudySignature | None, at: datetime = NOW) -> None:
    cohort = select(home.folder, STUDY)
    terms = approvals.terms_of(STUDY, read_policy(home.rules), cohort, at)
    approvals.sign_approval(
        home.approvals, STUDY, "engineer", key_of(home, "engineer"), terms, cohort, signature
    )


def allow(home: SiteHome, **rules: Any) -> None:
    rule(home, **rules)
    say_yes(home, signature_of(home))


def unapproved(home: SiteHome) -> None:
    rule(home)


def expired(home: SiteHome) -> None:
    rule(home, approval_days=1)
    say_yes(home, signature_of(home), NOW - timedelta(days=1, minutes=1))


def revoked(home: SiteHome) -> None:
    allow(home)
    approvals.revoke(home.approvals, STUDY.sha256)


def unsigned(home: SiteHome) -> None:
    rule(home)
    say_yes(home, None)


def signed_by_a_stranger(home: SiteHome) -> None:
    rule(home)
    say_yes(home, signature_of(home, "stranger"))


def signed_for_another(home: SiteHome) -> None:
    rule(home)
    say_yes(home, signature_of(home, study=small_study(version=2)))


def forged(home: SiteHome) -> None:
    rule(home)
    theirs = signature_of(home, "stranger")
    say_yes(home, theirs.model_copy(update={"key": signature_of(home).key}))


def narrowed(**rules: Any) -> Callable[[SiteHome], None]:
    """Approved, and then the policy was made stricter."""

    def prepare(home: SiteHome) -> None:
        allow(home)
        rule(home, **rules)

    return prepare


def runs_spent(home: SiteHome) -> None:
    allow(home, limits={"runs": 2})
    for run_id in (1, 2):
        Budget(home.runs, permit(home, STUDY)).claim(run_id)


def bytes_spent(home: SiteHome) -> None:
    allow(home, limits={"megabytes": 0.1})
    Budget(home.runs, permit(home, STUDY)).spend(sent=100_000)


def hours_spent(home: SiteHome) -> None:
    allow(home, limits={"hours": 0.5})
    Budget(home.runs, permit(home, STUDY)).spend(seconds=1800)


def approved_by_one(home: SiteHome) -> None:
    allow(home, two_persons=True, approvers=print_of(home, "engineer", "officer"))


def approved_by_a_stranger(home: SiteHome) -> None:
    allow(home, approvers=print_of(home, "officer"))


def approved_without_a_key(home: SiteHome) -> None:
    rule(home)
    approvals.approve(home.approvals, STUDY, "engineer")


def an_approval_made_longer(home: SiteHome) -> None:
    allow(home)
    path = home.approvals / f"{STUDY.sha256}.json"
    path.write_text(path.read_text().replace(f'"expires": "{(NOW + timedelta(90)).year}', '"expires": "2999'))


REFUSED: dict[str, Callable[[SiteHome], None]] = {
    "NOT_APPROVED": unapproved,
    "EXPIRED": expired,
    "REVOKED": revoked,
    "UNSIGNED": unsigned,
    "UNKNOWN_SIGNER": signed_by_a_stranger,
    "ALTERED": signed_for_another,
    "BAD_SIGNATURE": forged,
    "PURPOSE": narrowed(purposes=["education"]),
    "COMMERCIAL_INTEREST": narrowed(),
    "ETHICS": narrowed(ethics_number=True),
    "TASK": narrowed(tasks=["segmentation"]),
    "COHORT_TOO_SMALL": narrowed(minimum_cohort=500),
    "TOO_MANY_ROUNDS": narrowed(limits={"rounds": 1}),
    "SECURE_AGGREGATION": narrowed(privacy={"secure_aggregation": "required"}),
    "DIFFERENTIAL_PRIVACY": narrowed(privacy={"differential_privacy": {"epsilon": 8, "delta": 1e-5}}),
    "POLICY_CHANGED": narrowed(approval_days=365),
    "RUNS_SPENT": runs_spent,
    "BYTES_SPENT": bytes_spent,
    "HOURS_SPENT": hours_spent,
    "SECOND_APPROVAL": approved_by_one,
    "UNKNOWN_APPROVER": approved_by_a_stranger,
    "UNSIGNED_APPROVAL": approved_without_a_key,
    "ALTERED_APPROVAL": an_approval_made_longer,
}
del REFUSED["COMMERCIAL_INTEREST"]  # STUDY declares none; see the test of a study that does


def check_refused(parcel: Parcel, home: SiteHome, reason: str) -> None:
    """An error left in the answer's place: its code and reference outside, its reason in the ledger."""
    assert parcel.message.has_error()
    line = list(Ledger(home.ledger).lines())[-1]
    assert (line["kind"], line["code"], line["reason"]) == ("error", "REFUSED", reason)
    assert parcel.message.error.reason == f"REFUSED {line['reference']}"


def test_what_is_allowed_reads_cases(home: SiteHome) -> None:
    allow(
        home, limits={"runs": 1, "rounds": 2, "hours": 1, "megabytes": 1}, minimum_cohort=10, minimum_cell=4
    )
    before = len(seen)
    assert asked(home).message.has_content()
    assert len(seen) > before, "the hook sees what is read"


@pytest.mark.parametrize("reason", REFUSED)
def test_each_refusal_has_its_own_reason_and_reads_no_case(reason: str, home: SiteHome) -> None:
    REFUSED[reason](home)
    before = len(seen)
    check_refused(asked(home), home, reason)
    assert seen[before:] == []


def test_a_study_of_which_one_byte_differs_reads_no_case(home: SiteHome) -> None:
    allow(home)
    text = STUDY.canonical().replace('"seed":7', '"seed":8')
    assert len(text) == len(STUDY.canonical())
    before = len(seen)
    check_refused(asked(home, text), home, "ALTERED")
    assert seen[before:] == []


def test_a_study_with_a_commercial_interest_reads_no_case(home: SiteHome) -> None:
    study = small_study(purpose=PURPOSE | {"commercial_interest": True})
    rule(home, commercial_interest=True)
    cohort = select(home.folder, study)
    terms = approvals.terms_of(study, read_policy(home.rules), cohort, NOW)
    signed = signature_of(home, study=study)
    approvals.sign_approval(home.approvals, study, "e", key_of(home, "engineer"), terms, cohort, signed)
    rule(home)
    before = len(seen)
    check_refused(asked(home, study.canonical()), home, "COMMERCIAL_INTEREST")
    assert seen[before:] == []


def test_cases_that_came_after_the_approval_are_not_opened(home: SiteHome) -> None:
    """The catalogue must be read to know; no image is."""
    allow(home)
    path = home.approvals / f"{STUDY.sha256}.json"
    kept = approvals.find(home.approvals, STUDY)
    assert kept is not None
    assert kept.terms is not None
    cohort = select(home.folder, STUDY)
    fewer = {name: cases[1:] for name, cases in cohort.splits.items()}
    smaller = type(cohort)(cohort.flow, cohort.excluded, cohort.quarantined, fewer)
    path.unlink()
    terms = approvals.terms_of(STUDY, read_policy(home.rules), smaller, NOW)
    signed = signature_of(home)
    approvals.sign_approval(home.approvals, STUDY, "e", key_of(home, "engineer"), terms, smaller, signed)
    before = len(seen)
    check_refused(asked(home), home, "COHORT_CHANGED")
    assert {Path(path).name for path in seen[before:]} <= {"catalogue.sqlite"}


def test_a_refused_run_leaves_the_budget_as_it_was(home: SiteHome) -> None:
    runs_spent(home)
    for run_id in (3, 4):
        check_refused(asked(home, run_id=run_id), home, "RUNS_SPENT")
    assert Budget(home.runs, permit(home, STUDY)).spent()["runs"] == [1, 2]


# ------------------------------------------------------------------ what can't be approved in the first place


def approve(home: SiteHome, capsys: pytest.CaptureFixture[str], study: dict[str, Any], *words: str) -> Any:
    """Exit code and JSON of `fedai site approve`; the signature lies beside the study."""
    path = key_of(home, "study.yaml")
    path.write_text(json.dumps(study))
    capsys.readouterr()
    code = run(["site", "approve", str(home.folder), str(path), "--by", "tests", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


WHOLE = SMALL | {"purpose": PURPOSE}
ASKED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "UNSIGNED": ({}, "", WHOLE),
    "UNKNOWN_SIGNER": ({}, "stranger", WHOLE),
    "ALTERED": ({}, "coordinator", WHOLE | {"version": 2}),
    "PURPOSE": ({"purposes": ["education"]}, "coordinator", WHOLE),
    "COMMERCIAL_INTEREST": ({"signers": []}, "", SMALL),
    "ETHICS": ({"ethics_number": True}, "coordinator", WHOLE),
    "TASK": ({"tasks": ["segmentation"]}, "coordinator", WHOLE),
    "COHORT_TOO_SMALL": ({"minimum_cohort": 500}, "coordinator", WHOLE),
    "TOO_MANY_ROUNDS": ({"limits": {"rounds": 1}}, "coordinator", WHOLE),
    "SECURE_AGGREGATION": ({"privacy": {"secure_aggregation": "required"}}, "coordinator", WHOLE),
    "DIFFERENTIAL_PRIVACY": (
        {"privacy": {"differential_privacy": {"epsilon": 1, "delta": 1e-6}}}, "coordinator", WHOLE,
    ),
    "NOT_NAMED": ({}, "", WHOLE | {"sites": ["east", "west"]}),
}  # fmt: skip
READS_NO_CASE = ("SECURE_AGGREGATION", "DIFFERENTIAL_PRIVACY", "NOT_NAMED")


@pytest.mark.parametrize("reason", ASKED)
def test_what_breaks_a_rule_can_not_be_approved(
    reason: str, home: SiteHome, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, signer, study = ASKED[reason]
    rule(home, **rules)
    key_of(home, "study.yaml.sig").unlink(missing_ok=True)
    if signer:
        signature_of(home, signer)
    before = len(seen)
    code, told = approve(home, capsys, study)
    assert (code, told["error"]["reason"]) == (4, reason)
    if reason in READS_NO_CASE:
        assert seen[before:] == []
    assert not list(home.approvals.glob("*.json"))


def test_two_people_approve_and_a_stranger_can_not(
    home: SiteHome, capsys: pytest.CaptureFixture[str]
) -> None:
    rule(home, two_persons=True, approvers=print_of(home, "engineer", "officer"))
    signature_of(home)
    code, told = approve(home, capsys, WHOLE, "--key", str(key_of(home, "stranger")))
    assert (code, told["error"]["reason"]) == (4, "UNKNOWN_APPROVER")
    code, told = approve(home, capsys, WHOLE, "--key", str(key_of(home, "engineer")))
    assert (code, told["waits_for_second"]) == (0, True)
    check_refused(asked(home), home, "SECOND_APPROVAL")
    code, told = approve(home, capsys, WHOLE, "--key", str(key_of(home, "officer")))
    assert (code, told["waits_for_second"]) == (0, False)
    assert asked(home).message.has_content()
