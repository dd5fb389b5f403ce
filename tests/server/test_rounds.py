from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fedai_server import rounds
from fedai_server.rounds import Asked, Correspondence, Patience, same_task
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from post_office import TORN, Answer, Node, PostOffice, Script, Site
from replies_to import LAYOUT, STUDY, reply_to, task_of

from fedai import wire
from fedai.aggregation import WeightedMean
from fedai.errors import FederationError
from fedai.flower import PACKED, reply_record
from fedai.weights import Weights
from fedai.wire import Reply, Task

TASK = task_of("train")
SITES = ("north", "east", "south")
LONG = Patience(quorum=2, grace_s=5, deadline_s=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll every few milliseconds; be some run's process, as Flower's messages ask for."""
    monkeypatch.setattr(rounds, "LOOK_AROUND_S", 0.02)
    monkeypatch.setattr(rounds, "SHORTEST_POLL_S", 0.005)
    monkeypatch.setattr(rounds, "LONGEST_POLL_S", 0.01)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def answers(task: Task) -> Reply:
    return reply_to(task)


def silent(task: Task) -> None:
    return None


def office(**scripts: Script) -> PostOffice:
    return PostOffice({name: Site(scripts.get(name, answers)) for name in SITES})


def ask(
    grid: PostOffice,
    patience: Patience = LONG,
    *,
    fold: Callable[[str, Reply], None] | None = None,
    **more: Any,
) -> tuple[Asked, list[str]]:
    """Ask the training task of every site; also gives whom `fold` was called for, in order."""
    folded: list[str] = []

    def note(site: str, reply: Reply) -> None:
        if fold is not None:
            fold(site, reply)
        folded.append(site)

    asked = Correspondence(grid, STUDY, LAYOUT, **more).ask(same_task(TASK, SITES), patience, note)
    return asked, folded


def test_a_question_closes_when_all_have_answered() -> None:
    asked, folded = ask(office())
    assert sorted(asked.answered) == sorted(folded) == sorted(SITES)
    assert (asked.late, asked.refused) == ([], {})
    assert asked.seconds < 8


def test_the_arrays_that_are_folded_are_those_that_were_sent() -> None:
    mean = WeightedMean(LAYOUT)
    grid = office(
        north=lambda task: reply_to(task, cases=30, value=1.0),
        east=lambda task: reply_to(task, cases=10, value=5.0),
        south=lambda task: reply_to(task, cases=60, value=0.0),
    )
    ask(grid, fold=lambda site, reply: mean.add(site, Weights.of(dict(reply.arrays)), reply.metrics["cases"]))  # type: ignore[arg-type]
    np.testing.assert_allclose(mean.update().parameters, 0.8)
    assert mean.cases == 100


def test_after_a_quorum_the_rest_has_the_grace_and_no_longer() -> None:
    asked, _ = ask(office(south=silent), Patience(2, 0.2, 10))
    assert sorted(asked.answered) == ["east", "north"]
    assert asked.late == ["south"]
    assert 0.2 <= asked.seconds < 8


def test_who_answers_within_the_grace_counts() -> None:
    grid = office()
    grid.sites["south"].delay_s = 0.1
    asked, _ = ask(grid, Patience(2, 2, 10))
    assert len(asked.answered) == 3
    assert asked.seconds < 8


def test_without_a_quorum_the_deadline_closes() -> None:
    asked, _ = ask(office(south=silent, east=silent), Patience(2, 0, 0.3))
    assert (asked.answered, asked.late) == (["north"], ["east", "south"])
    assert 0.3 <= asked.seconds < 8


def test_who_answers_after_the_end_is_late_and_not_folded() -> None:
    grid = office()
    grid.sites["south"].delay_s = 0.5
    asked, folded = ask(grid, Patience(2, 0, 10))
    assert asked.late == ["south"]
    assert "south" not in folded


def test_a_site_that_is_not_there_is_neither_asked_nor_pulled_for() -> None:
    grid = office()
    del grid.nodes["south"]
    asked, _ = ask(grid, Patience(3, 0, 0.2))
    assert asked.late == ["south"]
    assert grid.sites["south"].asked == []
    assert "south" not in grid.pulled_of


def test_a_site_that_leaves_is_not_pulled_for_while_it_is_away() -> None:
    """The SuperLink writes a message off that is pulled for while its site is offline."""
    grid = office(south=silent)
    threading.Timer(0.1, lambda: grid.nodes.pop("south")).start()
    threading.Timer(0.2, grid.pulled_of.clear).start()
    asked, _ = ask(grid, Patience(3, 0, 0.4))
    assert asked.late == ["south"]
    assert "south" not in grid.pulled_of


def test_a_site_that_comes_later_is_asked_when_it_comes() -> None:
    grid = office()
    south = grid.nodes.pop("south")
    threading.Timer(0.1, lambda: grid.nodes.update(south=south)).start()
    asked, _ = ask(grid, Patience(3, 0, 5))
    assert len(asked.answered) == 3
    assert len(grid.sites["south"].asked) == 1


def test_a_site_that_was_away_and_came_back_is_asked_again() -> None:
    grid = office()
    tries = iter([silent, answers])
    grid.sites["south"].script = lambda task: next(tries)(task)

    def restart() -> None:
        grid.nodes["south"] = Node("south", grid.nodes["south"].node_id, "t2")

    threading.Timer(0.1, restart).start()
    asked, folded = ask(grid, Patience(3, 0, 5))
    assert len(asked.answered) == 3
    assert len(grid.sites["south"].asked) == 2
    assert grid.sites["south"].asked[0].key == grid.sites["south"].asked[1].key
    assert folded.count("south") == 1


def test_a_site_that_stays_is_asked_once_however_long_it_takes() -> None:
    grid = office()
    grid.sites["south"].delay_s = 0.3
    asked, _ = ask(grid, Patience(3, 0, 5))
    assert len(asked.answered) == 3
    assert [len(site.asked) for site in grid.sites.values()] == [1, 1, 1]


def test_two_answers_to_two_askings_count_once() -> None:
    grid = office()
    grid.sites["south"].delay_s = 0.3

    def restart() -> None:
        grid.nodes["south"] = Node("south", grid.nodes["south"].node_id, "t2")
        grid.sites["south"].delay_s = 0.2

    threading.Timer(0.1, restart).start()
    asked, folded = ask(grid, Patience(3, 0, 5))
    assert len(grid.sites["south"].asked) == 2
    assert asked.answered.count("south") == folded.count("south") == 1


def test_a_push_that_did_not_go_through_is_made_again() -> None:
    grid = office()
    grid.refuse_pushes = 2
    asked, _ = ask(grid)
    assert len(asked.answered) == 3


def test_flowers_own_word_for_a_site_is_not_the_sites_answer() -> None:
    tries: Iterator[Callable[[Task], Answer]] = iter([lambda _: Error(5, "node unavailable"), answers])
    grid = office(south=lambda task: next(tries)(task))
    asked, _ = ask(grid, Patience(3, 0, 5))
    assert len(asked.answered) == 3
    assert asked.refused == {}
    assert len(grid.sites["south"].asked) == 2


def test_a_sealed_error_names_the_site_with_code_and_reference() -> None:
    grid = office(south=lambda _: Error(wire.ERROR_NUMBER, "DATA 0123456789ab"))
    asked, folded = ask(grid)
    assert asked.refused == {"south": "DATA 0123456789ab"}
    assert "south" not in folded
    assert asked.late == []


@pytest.mark.parametrize(
    "reason", ["Hong^Gildong", "", "DATA", "DATA 0123456789ab Hong", "DATA 0123456789AB"]
)
def test_what_an_error_says_beyond_that_is_not_repeated(reason: str) -> None:
    asked, _ = ask(office(south=lambda _: Error(wire.ERROR_NUMBER, reason)))
    assert asked.refused == {"south": "UNSEALED"}


def nan(task: Task) -> Reply:
    sound = reply_to(task)
    arrays = {**sound.arrays, "parameters": np.full_like(sound.arrays["parameters"], np.nan)}
    return dataclasses.replace(sound, arrays=arrays)


def extra(task: Task) -> Reply:
    sound = reply_to(task)
    return dataclasses.replace(sound, metrics={**sound.metrics, "Hong_Gildong": 1})


def odd_records(task: Task) -> RecordDict:
    return RecordDict({"note": ConfigRecord({"patient": "Hong^Gildong"})})


def torn(task: Task) -> RecordDict:
    record = reply_record(reply_to(task))
    record["arrays"][PACKED].data = record["arrays"][PACKED].data[:-1]  # type: ignore[index]
    return record


def deep(task: Task) -> RecordDict:
    return RecordDict({**reply_record(reply_to(task)), "reply": ConfigRecord({"head": "[" * 100_000})})


@pytest.mark.parametrize("script", [nan, extra, odd_records, torn, deep])
def test_an_answer_that_does_not_fit_is_refused_and_ends_nothing(script: Script) -> None:
    asked, folded = ask(office(south=script))
    assert sorted(asked.answered) == ["east", "north"]
    assert "south" not in folded
    assert asked.refused["south"].startswith("REFUSED ")
    assert "Gildong" not in asked.refused["south"]


def test_an_answer_that_the_grid_refuses_is_its_sites_and_ends_nothing() -> None:
    asked, folded = ask(office(south=lambda _: RecordDict({TORN: ConfigRecord({})})))
    assert sorted(asked.answered) == sorted(folded) == ["east", "north"]
    assert asked.refused == {"south": "REFUSED the message can't be put together"}


@pytest.mark.parametrize("fact", ["_src_node_id", "_reply_to_message_id"])
def test_an_answer_that_says_it_is_another_sites_counts_for_nobody(fact: str) -> None:
    grid = office()
    south = grid.nodes["south"].node_id

    def forge(reply: Message) -> None:
        if reply.metadata.src_node_id == south:
            other = {"_src_node_id": grid.nodes["north"].node_id, "_reply_to_message_id": "m1"}
            reply.metadata.__dict__[fact] = other[fact]

    grid.forge = forge
    asked, folded = ask(grid)
    assert sorted(asked.answered) == sorted(folded) == ["east", "north"]
    assert "another site's" in asked.refused["south"]


def test_a_question_closes_once_refusals_make_its_least_impossible() -> None:
    asked, _ = ask(office(south=nan, east=nan, north=silent), Patience(3, 0, 30, least=2))
    assert asked.seconds < 10
    assert set(asked.refused) == {"south", "east"}


def test_a_refusal_that_comes_a_little_after_the_decisive_one_is_heard_too() -> None:
    grid = office(south=nan, east=nan, north=nan)
    grid.sites["north"].delay_s = 1.0
    asked, _ = ask(grid, Patience(3, 0, 30, least=2))
    assert set(asked.refused) == {"south", "east", "north"}
    assert not asked.late


def test_a_question_stays_open_while_its_least_is_possible() -> None:
    grid = office(south=nan)
    grid.sites["north"].delay_s = 0.2
    asked, _ = ask(grid, Patience(3, 0, 30, least=2))
    assert sorted(asked.answered) == ["east", "north"]


def raise_federation_error(site: str, reply: Reply) -> None:
    if site == "south":
        raise FederationError("the update claims 0 cases")


def raise_something_else(site: str, reply: Reply) -> None:
    if site == "south":
        raise ZeroDivisionError("Hong^Gildong")


def test_what_folding_raises_is_a_refusal() -> None:
    assert ask(office(), fold=raise_federation_error)[0].refused == {
        "south": "FEDERATION the update claims 0 cases"
    }
    asked, _ = ask(office(), fold=raise_something_else)
    assert sorted(asked.answered) == ["east", "north"]
    assert "Gildong" not in asked.refused["south"]


def test_a_refusal_does_not_count_towards_the_quorum() -> None:
    asked, _ = ask(office(south=nan, east=silent), Patience(2, 0, 0.2))
    assert (asked.answered, asked.late, list(asked.refused)) == (["north"], ["east"], ["south"])


def test_a_stop_ends_the_waiting_at_once() -> None:
    until = time.monotonic() + 0.1
    asked, _ = ask(office(south=silent), Patience(3, 0, 30), is_stopped=lambda: time.monotonic() > until)
    assert asked.seconds < 8
    assert asked.late == ["south"]


def test_nodes_that_the_study_does_not_name_are_left_alone() -> None:
    grid = office()
    grid.sites["west"] = Site(answers)
    grid.nodes["west"] = Node("west", 99)
    assert set(Correspondence(grid, STUDY, LAYOUT).online()) == set(SITES)
    ask(grid)
    assert grid.sites["west"].asked == []


def test_messages_outlive_the_deadline_by_a_margin_and_have_their_type() -> None:
    sent = []
    grid = office()
    push = grid.push_messages
    grid.push_messages = lambda messages: [sent.extend(messages), push(messages)][1]  # type: ignore[method-assign,func-returns-value]
    ask(grid)
    assert {message.metadata.message_type for message in sent} == {"train"}
    assert {message.metadata.ttl for message in sent} == {LONG.deadline_s + rounds.TTL_MARGIN_S}
    assert {message.metadata.group_id for message in sent} == {"1"}


def test_polling_slows_down_while_a_site_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert rounds._pause(0) == rounds.SHORTEST_POLL_S
    assert rounds._pause(10) == pytest.approx(0.5)
    assert rounds._pause(1000) == rounds.LONGEST_POLL_S


class SlowOffice(PostOffice):
    """Answers take long to fetch, longer than a look waits; those of `stuck` sites never come whole."""

    def begin(self, *stuck: str) -> None:
        self.stuck, self.end = stuck, threading.Event()
        self.fetching, self.most, self.lock = 0, 0, threading.Lock()

    def pull_messages(self, message_ids: Any) -> list[Message]:
        wanted = list(message_ids)
        if {self.owner[identifier] for identifier in wanted} & set(self.stuck):
            self.end.wait(30)
            return []
        with self.lock:
            self.fetching += 1
            self.most = max(self.most, self.fetching)
        time.sleep(0.05)
        with self.lock:
            self.fetching -= 1
        return super().pull_messages(wanted)


def slow_office(sites: int, *stuck: str) -> tuple[SlowOffice, Correspondence]:
    names = [f"site-{number}" for number in range(sites)]
    grid = SlowOffice({name: Site(answers) for name in names})
    grid.begin(*stuck)
    study = STUDY.model_copy(update={"sites": tuple(names)})
    return grid, Correspondence(grid, study, LAYOUT)


def test_of_many_answers_that_are_slow_to_fetch_few_are_fetched_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is in memory whole; a slow disk must not bring them all there together."""
    monkeypatch.setattr(rounds, "LOOK_S", 0.001)
    monkeypatch.setattr(rounds.wire, "check", lambda *_: None)
    grid, post = slow_office(16)
    asked = post.ask(same_task(TASK, list(grid.sites)), Patience(16, 0, 60), lambda *_: None)
    assert len(asked.answered) == 16
    assert 1 <= grid.most <= rounds.MOST_LOOKS


def test_answers_that_never_come_whole_make_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "LOOK_S", 0.001)
    monkeypatch.setattr(rounds, "STUCK_S", 0.2)
    monkeypatch.setattr(rounds.wire, "check", lambda *_: None)
    stuck = ("site-0", "site-1", "site-2", "site-3")
    grid, post = slow_office(8, *stuck)
    try:
        asked = post.ask(same_task(TASK, list(grid.sites)), Patience(4, 0, 20), lambda *_: None)
    finally:
        grid.end.set()
    assert sorted(asked.answered) == [f"site-{number}" for number in range(4, 8)]
    assert asked.late == list(stuck)
    assert asked.seconds < 15
