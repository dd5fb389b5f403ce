"""What the policy says is kept too long is deleted, searched for and put down; nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import encode, radiograph
from fedai_site import approvals, cache, doctor, expiry, inbox, receipts
from fedai_site.agent import Agent
from fedai_site.cohort import select
from fedai_site.consents import Consents
from fedai_site.deidentify.run import alone
from fedai_site.expiry import due, purge_expired
from fedai_site.home import SiteHome
from fedai_site.policy import Policy
from fedai_site.traces import files_under
from homes import make_home, told
from studies import small_study

from fedai.errors import DataError
from fedai.ledger import Ledger
from fedai.signatures import write_key

STUDY = small_study()
DAY_S = 86_400
ALL = {"originals": 30, "arrays": 30, "runs": 30, "sent": 30, "approvals": 30}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """A home with something of each kind, as old as the test."""
    folder = tmp_path_factory.mktemp("site")
    home = make_home(folder, patients=4)
    cohort = select(home.folder, STUDY)
    cache.load(home.folder, cohort.splits["train"], STUDY.preprocessing)
    inbox.open_inbox(home.folder)
    for number in range(2):
        raw = encode(radiograph(number + 50, f"LATE{number}", rows=64, columns=64))
        inbox.store(home.folder / "inbox", home.folder / "inbox" / ".parts" / f"p{number}", [raw])
    (home.folder / "deid" / "pictures").mkdir()
    noise = np.random.default_rng(3)
    (home.folder / "deid" / "pictures" / f"{'a' * 64}.png").write_bytes(noise.bytes(3000))
    for run in ("small-1", "small-2"):
        replies = home.runs / run / f"7-{STUDY.sha256}" / "replies"
        replies.mkdir(parents=True)
        np.savez(replies / "train-1.npz", parameters=noise.normal(size=3000))
    (home.runs / "asked").mkdir(exist_ok=True)
    (home.runs / "asked" / "7.json").write_text("{}")
    home.sent.mkdir()
    (home.sent / "1.bin").write_bytes(noise.bytes(5000))
    Ledger(home.ledger).append(kind="error", run="small-1")
    write_key(folder / "key")
    ended = datetime.now(UTC) - timedelta(days=200)
    terms = approvals.terms_of(STUDY, Policy(), cohort, ended)
    approvals.sign_approval(home.approvals, STUDY, "kim", folder / "key", terms, cohort, None)
    approvals.approve(home.approvals, small_study(version=2), "kim")
    approvals.approve(home.approvals, small_study(version=3), "kim")
    approvals.revoke(home.approvals, small_study(version=3).sha256)
    return home


@pytest.fixture
def home(filled: SiteHome, tmp_path: Path) -> SiteHome:
    return SiteHome(shutil.copytree(filled.folder, tmp_path / "north"), filled.settings)


def keep(home: SiteHome, **retention: Any) -> None:
    home.rules.write_text(json.dumps({"retention": retention}))


def in_days(days: float) -> float:
    return time.time() + days * DAY_S


def make_old(*paths: Path, days: float = 31) -> None:
    for path in paths:
        os.utime(path, (in_days(-days), in_days(-days)))


def test_without_a_rule_nothing_is_ever_due(home: SiteHome) -> None:
    assert due(home, in_days(10_000)).counts() == {}
    keep(home)
    assert due(home, in_days(10_000)).counts() == {}
    assert purge_expired(home, in_days(10_000)) is None


def test_each_kind_has_a_period_of_its_own(home: SiteHome) -> None:
    whole = {"originals": 3, "arrays": 4, "runs": 2, "sent": 1}
    keep(home, **ALL)
    assert due(home, in_days(29)).counts() == {"approvals": 2}, "the one that ended 110 days ago"
    assert due(home, in_days(31)).counts() == whole | {"approvals": 3}
    for kind, number in whole.items():
        keep(home, **{kind: 30})
        assert due(home, in_days(31)).counts() == {kind: number}


def test_what_is_due_goes_and_all_else_stays_to_the_byte(home: SiteHome) -> None:
    keep(home, **ALL)
    before = {path: path.read_bytes() for path in files_under(home.folder)}
    found = due(home, in_days(31))
    receipt = purge_expired(home, in_days(31))
    assert receipt is not None
    gone = {path for paths in found.files.values() for path in paths}
    assert len(gone) == 13
    made = {receipt, *(home.folder / "keys" / name for name in ("receipts.key", "receipts.pub"))}
    after = {path: path.read_bytes() for path in files_under(home.folder) if path not in made}
    made_by_locks = {path for path in after if path not in before and path.stat().st_size == 0}
    assert {path: after[path] for path in after if path not in made_by_locks} == {
        path: content for path, content in before.items() if path not in gone
    }
    facts = receipts.verify(receipt, home.folder / "keys" / "receipts.pub")
    assert facts["deleted"] == {
        "originals": 3, "arrays": 4, "runs": 2, "sent": 1, "approvals": 3,
        "bytes": sum(len(before[path]) for path in gone),
    }  # fmt: skip
    assert facts["searched"]["left"] == 0
    assert purge_expired(home, in_days(31)) is None


def test_a_run_that_was_worked_on_lately_keeps_all_it_has(home: SiteHome) -> None:
    keep(home, runs=30)
    old, mixed = (home.runs / name / f"7-{STUDY.sha256}" / "replies" for name in ("small-1", "small-2"))
    shutil.copy(mixed / "train-1.npz", mixed / "train-2.npz")
    make_old(old / "train-1.npz", mixed / "train-1.npz")
    assert purge_expired(home) is not None
    assert not old.parent.exists()
    assert len(list(mixed.iterdir())) == 2


def test_a_copy_elsewhere_keeps_the_receipt_back_until_it_is_gone(home: SiteHome) -> None:
    keep(home, originals=30)
    original = next(inbox.waiting(home.folder / "inbox"))
    copy = home.folder / "runs" / "my-notes.bin"
    copy.write_bytes(b"x" * 99 + original.read_bytes())
    make_old(original)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            purge_expired(home)
        assert "my-notes.bin" in caught.value.where
    assert not original.exists()
    copy.unlink()
    assert purge_expired(home) is not None
    assert list((home.folder / "unfinished").iterdir()) == []


def test_nothing_outside_of_the_home_is_touched(home: SiteHome, tmp_path: Path) -> None:
    keep(home, originals=30)
    elsewhere, own = tmp_path / "archive", next(inbox.waiting(home.folder / "inbox"))
    elsewhere.mkdir()
    (elsewhere / "there.dcm").write_bytes(own.read_bytes())
    (home.folder / "inbox" / "ff").symlink_to(elsewhere)
    (own.parent / f"{'0' * 64}.dcm").symlink_to(elsewhere / "there.dcm")
    make_old(elsewhere / "there.dcm", own)
    assert due(home).files["originals"] == (own,)
    assert purge_expired(home) is not None
    assert (elsewhere / "there.dcm").exists()


def test_while_data_are_added_originals_wait(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    keep(home, originals=30)
    originals = list(inbox.waiting(home.folder / "inbox"))
    make_old(*originals)
    with alone(home.folder / "deid", home.folder / "clean"):
        assert told(capsys, "purge", home.folder, "--expired")[0] == 2
        expiry.keep_to_the_policy(home)
        assert all(path.exists() for path in originals)
    assert told(capsys, "purge", home.folder, "--expired")[0] == 0
    assert not any(path.exists() for path in originals)


def test_many_files_go_in_portions(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(home, arrays=30)
    monkeypatch.setattr(expiry, "MOST", 3)
    make_old(*(home.folder / "cache").rglob("*.npy"))
    expiry.keep_to_the_policy(home)
    assert len(list(home.receipts.glob("purge-expired-*"))) == 2
    assert not list((home.folder / "cache").rglob("*.npy"))


def test_a_dry_run_says_what_is_due_and_so_do_status_and_doctor(
    home: SiteHome, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(home, sent=30)
    make_old(home.sent / "1.bin")
    code, facts = told(capsys, "purge", home.folder, "--expired", "--dry-run")
    assert (code, facts["due"], facts["receipts"]) == (0, {"sent": 1}, [])
    assert told(capsys, "status", home.folder)[1]["due"] == {"sent": 1}
    policy, retention = doctor._policy(home)
    assert (policy.ok, retention.ok, retention.warns, retention.found) == (
        True,
        True,
        True,
        "1 files of sent",
    )
    assert (home.sent / "1.bin").exists()
    code, facts = told(capsys, "purge", home.folder, "--expired")
    assert (code, len(facts["receipts"])) == (0, 1)
    for words in (["--dry-run"], [], ["study.yaml", "--expired"]):
        assert told(capsys, "purge", home.folder, *words)[0] == 2


def test_the_agent_does_it_at_its_start_and_then_once_a_day(home: SiteHome) -> None:
    import threading

    keep(home, sent=30, approvals=30)
    make_old(home.sent / "1.bin")
    agent = Agent(home, threading.Event(), tell=lambda _: None)
    agent._forget()
    assert not (home.sent / "1.bin").exists()
    assert len(list(home.receipts.glob("purge-expired-*"))) == 1
    (home.folder / "runs" / "asked" / "8.json").write_text("{}")
    agent.forgot_at = float("-inf")
    agent._forget()
    assert len(list(home.receipts.glob("purge-expired-*"))) == 1


def test_a_wrong_policy_hinders_no_agent_and_deletes_nothing(home: SiteHome) -> None:
    home.rules.write_text("retention: {originals: 0}")
    assert [check.ok for check in doctor._policy(home)] == [False]
    expiry.keep_to_the_policy(home)
    assert not list(home.receipts.glob("*"))


def test_consents_and_the_ledger_are_where_they_were(home: SiteHome) -> None:
    keep(home, **ALL)
    ledger = home.ledger.read_bytes()
    purge_expired(home, in_days(10_000))
    assert home.ledger.read_bytes() == ledger
    with Consents(home.folder) as consents:
        assert len(consents.patients()) == 4
