from __future__ import annotations

import mmap
import threading

import pytest
from fedai_site import approvals
from fedai_site.agent import Agent
from fedai_site.fleet import Envelope, RunFacts
from fedai_site.home import SiteHome
from fedai_site.watchdog import STUCK_EXIT_CODE, Watchdog, resident_gb
from flwr.app import Message
from homes import make_home
from replies_to import STUDY, message_of, task_of

from fedai.errors import TrainingError
from fedai.ledger import Ledger
from fedai.release import BUNDLE_SHA256


class Clock:
    """Minutes that pass when they are told to."""

    def __init__(self) -> None:
        self.minutes = 0.0

    def __call__(self) -> float:
        return self.minutes * 60


def test_memory_is_what_the_process_holds() -> None:
    mine = mmap.mmap(-1, 50_000_000)  # pages that no allocator had before
    before = resident_gb()
    mine.write(b"1" * 50_000_000)
    held = resident_gb() - before
    mine.close()
    assert 0.04 < held < 0.2


def test_a_batch_that_took_too_long_ends_the_work_and_a_quick_one_does_not() -> None:
    clock = Clock()
    dog = Watchdog(stuck_minutes=10, now=clock)
    clock.minutes = 100
    dog.check()  # no task before it
    clock.minutes += 9
    dog.check()
    clock.minutes += 11
    with pytest.raises(TrainingError, match=r"no batch for 11\.0 minutes, more than 10"):
        dog.check()


def test_a_process_that_is_stuck_ends_itself_and_one_at_rest_does_not() -> None:
    clock, ended = Clock(), list[int]()
    dog = Watchdog(stuck_minutes=10, now=clock, end=ended.append)
    dog.begin()
    clock.minutes = 19
    dog.look()
    assert ended == []
    dog.rest()
    clock.minutes = 500
    dog.look()
    assert ended == []
    dog.begin()
    clock.minutes = 521
    dog.look()
    assert ended == [STUCK_EXIT_CODE]


def test_without_settings_nothing_is_watched() -> None:
    clock = Clock()
    dog = Watchdog(now=clock)
    dog.begin()
    clock.minutes = 10_000
    dog.check()
    dog.look()


def test_a_task_that_takes_too_much_memory_is_answered_with_a_sealed_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    class Line:
        def facts_of(self, run_id: int) -> RunFacts:
            return RunFacts(run_id, BUNDLE_SHA256, STUDY.canonical())

        def fetch(self, envelope: Envelope, limit: int) -> Message:
            return envelope.head

    made = make_home(tmp_path_factory.mktemp("site"), patients=28)
    approvals.approve(made.approvals, STUDY, "Dr. Who")
    home = SiteHome(made.folder, made.settings.model_copy(update={"memory_gb": 0.001}))
    agent = Agent(home, threading.Event(), tell=lambda _: None)
    envelope = Envelope(message_of(task_of("train")), None)
    assert agent._answer(Line(), envelope).message.has_error()  # type: ignore[arg-type]
    assert [line["code"] for line in Ledger(home.ledger).lines()] == ["TRAINING"]
