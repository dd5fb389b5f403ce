from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fedai_site import approvals
from fedai_site.agent import Agent, log_to
from fedai_site.budget import Budget
from fedai_site.client_app import Bench
from fedai_site.fleet import Envelope, Parcel, RunFacts
from fedai_site.home import SiteHome
from flwr.app import Message
from homes import make_home
from replies_to import STUDY, message_of, task_of

from fedai import wire
from fedai.ledger import Ledger
from fedai.logs import about
from fedai.release import BUNDLE_SHA256
from fedai.wire import Reply, Task

RUN = 7


@dataclass
class Line:
    """A connection on which one task lies ready."""

    task: Task

    def facts_of(self, run_id: int) -> RunFacts:
        return RunFacts(run_id, BUNDLE_SHA256, STUDY.canonical())

    def fetch(self, envelope: Envelope, limit: int) -> Message:
        return envelope.head


def answered(agent: Agent, task: Task) -> Parcel:
    """What the agent would send for the task."""
    envelope = Envelope(message_of(task, RUN), None)
    return agent._answer(Line(task), envelope)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=28)


@pytest.fixture
def home(filled: SiteHome) -> SiteHome:
    approvals.approve(filled.approvals, STUDY, "Dr. Who")
    filled.ledger.unlink(missing_ok=True)
    filled.ledger_heads.unlink(missing_ok=True)
    for asked in filled.runs.rglob("*.json"):
        asked.unlink()
    return filled


def agent_at(home: SiteHome) -> Agent:
    return Agent(home, threading.Event(), tell=lambda _: None)


def lines(home: SiteHome) -> list[dict[str, Any]]:
    return list(Ledger(home.ledger).lines())


@pytest.mark.parametrize("kind", ["ready", "train", "train_alone", "score"])
def test_an_answer_leaves_after_its_line_in_the_ledger(kind: wire.TaskKind, home: SiteHome) -> None:
    assert answered(agent_at(home), task_of(kind)).message.has_content()
    assert [line["kind"] for line in lines(home)] == [wire.REPLY_OF[kind]]


@pytest.mark.parametrize("kind", ["ready", "train", "train_alone", "score"])
def test_a_yes_taken_back_while_an_answer_is_made_keeps_it_here(
    kind: wire.TaskKind, home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Bench.answer

    def revoked_at_the_end(self: Bench, task: Task, run_id: int) -> Reply:
        reply = answer(self, task, run_id)
        assert approvals.revoke(home.approvals, STUDY.sha256)
        return reply

    monkeypatch.setattr(Bench, "answer", revoked_at_the_end)
    parcel = answered(agent_at(home), task_of(kind, run="revoked"))
    assert parcel.message.has_error()
    assert [(line["kind"], line["code"]) for line in lines(home)] == [("error", "REFUSED")]


def test_a_score_stops_at_the_next_batch_after_a_yes_was_taken_back(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def revoked_before_scoring(self: Bench, split: str) -> Any:
        approvals.revoke(home.approvals, STUDY.sha256)
        return images(self, split)

    images = Bench.images
    monkeypatch.setattr(Bench, "images", revoked_before_scoring)
    assert answered(agent_at(home), task_of("score", model="late")).message.has_error()
    assert [line["code"] for line in lines(home)] == ["TRAINING"]
    assert not list(home.runs.rglob("scores-late.npy"))


def test_a_task_that_does_not_fit_the_study_leaves_no_trace_in_what_was_asked(home: SiteHome) -> None:
    agent = agent_at(home)
    for number in range(3):
        assert answered(agent, task_of("train", round=10**6 + number)).message.has_error()
    assert not (home.runs / "asked" / f"{RUN}.json").exists()
    assert answered(agent, task_of("train")).message.has_content()
    assert list(json.loads((home.runs / "asked" / f"{RUN}.json").read_text())["tasks"]) == ["train-1-"]


def test_an_idle_agent_deletes_what_was_kept_long_enough(home: SiteHome) -> None:
    home.sent.mkdir(exist_ok=True)
    (home.sent / "1.bin").write_bytes(b"left long ago")
    agent = agent_at(home)
    agent._forget()
    assert not (home.sent / "1.bin").exists()
    (home.sent / "2.bin").write_bytes(b"looked at every ten minutes")
    agent._forget()
    assert (home.sent / "2.bin").exists()


@pytest.mark.parametrize("what", ["expired", "hours"])
def test_work_stops_at_the_next_batch_when_the_approval_or_its_hours_end(
    what: str, home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Bench.images
    agent = agent_at(home)

    def ended_before_training(self: Bench, split: str) -> Any:
        if what == "expired":
            agent.until = time.time() - 1
        return images(self, split)

    monkeypatch.setattr(Bench, "images", ended_before_training)
    if what == "hours":
        monkeypatch.setattr(Budget, "seconds_left", lambda self: -1.0)
    assert answered(agent, task_of("train_alone", run=f"ended-{what}")).message.has_error()
    assert [line["code"] for line in lines(home)] == ["TRAINING"]


def test_a_log_on_a_full_disk_prints_nothing_in_its_place(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    code = (
        "import logging, pathlib; from fedai_site.agent import log_to;"
        "log_to(pathlib.Path('/dev/full')); logging.getLogger('x').error('Hong^Gildong')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_log_in_json_says_which_run_round_and_site_a_line_is_about(home: SiteHome, tmp_path: Path) -> None:
    root = logging.getLogger()
    before, raises = list(root.handlers), logging.raiseExceptions
    log_to(tmp_path / "site.log", "json")
    try:
        answered(agent_at(home), task_of("ready", run="logged-1"))
        answered(agent_at(home), task_of("train", run="logged-1", round=99))  # the study has two: refused
    finally:
        about()
        logging.raiseExceptions = raises
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
    lines = [json.loads(line) for line in (tmp_path / "site.log").read_text().splitlines()]
    (took,) = [line for line in lines if "took" in line["text"]]
    assert (took["site"], took["run"], took["task"]) == ("north", "logged-1", "ready")
    (sealed,) = [line for line in lines if line["level"] == "ERROR"]
    assert (sealed["run"], sealed["round"], sealed["task"]) == ("logged-1", 99, "train")
    assert "Traceback" in sealed["trace"]


def test_an_agent_that_has_done_its_task_says_that_it_waits_and_what_the_last_one_was(home: SiteHome) -> None:
    agent, said = agent_at(home), []

    class OneTask(Line):
        """Gives its task, takes the answer, and has nothing more."""

        def receive(self) -> Envelope | None:
            if said:
                agent.stop.set()
                return None
            return Envelope(message_of(self.task, RUN), None)

        def send(self, parcel: Parcel, seconds: float) -> None:
            said.append(json.loads(home.status.read_text()))

    agent._serve(OneTask(task_of("ready", run="small-1")))  # type: ignore[arg-type]
    assert [(one["state"], one["text"]) for one in said] == [("working", "small-1: ready")]
    now = json.loads(home.status.read_text())
    assert (now["state"], now["text"]) == ("connected", "waits for a task; the last was small-1: ready")
