"""Rounds that wait for nobody: real sites in this process, one of them slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_server.buffered import SENT, sent_before
from fedai_site.home import SiteHome
from fedai_site.replies import digest_of
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from hospitals import SITES, at, make_hospitals, run_of
from post_office import PostOffice
from studies import small_study

from fedai.checkpoint import checkpoint_sha256, load_checkpoint
from fedai.errors import OutOfTime
from fedai.tasks.classification import build_network
from fedai.weights import Weights, layout_of
from fedai.wire import Reply, Task

pytestmark = pytest.mark.usefixtures("quick")
STUDY = small_study(
    strategy={"name": "FedBuff", "buffer": 2},
    training={"rounds": 4},
    rounds={"grace_s": 2, "deadline_s": 30, "waiting_s": 30, "quorum": 1},
    judgement={"local_models": False},
)
LAYOUT = layout_of(build_network(STUDY))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


@dataclass
class Slow:
    """Updates that come late: (site, round) -> the round that is open when they come, or `NEVER`. They come
    when north, who is never late, has answered in it. What sites answered is in `sent`.
    """

    grid: PostOffice
    comes: dict[tuple[str, int], int]
    sent: dict[tuple[str, int], Reply] = field(default_factory=dict)
    held: dict[int, tuple[Message, Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, site in self.grid.sites.items():
            site.script = self._scripted(name, site.script)
        self.push = self.grid._push
        self.grid._push = self._pushed  # type: ignore[method-assign]

    def _scripted(self, name: str, work: Any) -> Any:
        def answer(task: Task) -> Any:
            reply = work(task)
            if task.kind == "train":
                self.sent[name, task.round] = reply
            return None if (name, task.round) in self.comes and task.kind == "train" else reply

        return answer

    def _pushed(self, message: Any) -> str:
        identifier = self.push(message)
        name = self.grid.owner[identifier]
        task = self.grid.sites[name].asked[-1]
        if (name, task.round) in self.comes and task.kind == "train":
            self.held[self.comes[name, task.round]] = (message, self.sent[name, task.round])
        if name == "north" and task.round in self.held:
            self.grid.answer(*self.held.pop(task.round))
        return identifier


NEVER = 99
COMES = {("south", 1): 3, ("east", 3): 4, ("south", 4): NEVER}


def rounds_of(runs: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = runs.record("small-1")["rounds"]
    return found


@dataclass(frozen=True)
class Done:
    """A run in which south and east are late now and then."""

    slow: Slow
    registry: Path
    rounds: list[dict[str, Any]]


@pytest.fixture(scope="module")
def done(hospitals: dict[str, SiteHome], tmp_path_factory: pytest.TempPathFactory) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        slow = Slow(at(hospitals, STUDY, run_id=20), COMES)
        runs, registry, go = run_of(tmp_path_factory.mktemp("done"), slow.grid, STUDY)
        go()
    return Done(slow, registry, rounds_of(runs))


def test_a_slow_sites_update_is_folded_into_the_round_that_is_open_when_it_comes(done: Done) -> None:
    """South, sent the first weights, answers in round 3: two rounds stale."""
    pairs = [["east", "north"], ["east", "north"], ["north", "south"], ["east", "north"]]
    assert [closed["answered"] for closed in done.rounds] == pairs
    assert [closed["staleness"] for closed in done.rounds[2:]] == [
        {"north": 0, "south": 2},
        {"north": 0, "east": 1},
    ]
    assert done.rounds[0]["still_training"] == done.rounds[1]["still_training"] == ["south"]
    before, after = (load_checkpoint(done.registry / f"round-000{n}", LAYOUT) for n in (2, 3))
    replies = (done.slow.sent["north", 3], done.slow.sent["south", 1])
    north, south = (float(reply.metrics["cases"]) for reply in replies)
    updates = [Weights.of(dict(reply.arrays)).parameters.astype(np.float64) for reply in replies]
    moved = (north * updates[0] + south / np.sqrt(3) * updates[1]) / (north + south)
    np.testing.assert_allclose(after.parameters - before.parameters, moved, atol=1e-6)


def test_a_site_has_one_task_at_a_time_and_each_update_counts_once(done: Done) -> None:
    trained = {
        name: [task.round for task in site.asked if task.kind == "train"]
        for name, site in done.slow.grid.sites.items()
    }
    assert trained == {"north": [1, 2, 3, 4], "east": [1, 2, 3], "south": [1, 4]}
    folded = [
        (site, closed["number"] - closed["staleness"][site])
        for closed in done.rounds
        for site in closed["answered"]
    ]
    assert len(folded) == len(set(folded)) == 8


def test_who_still_trains_at_the_deadline_is_no_reason_to_fail_where_a_quorum_has_answered(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = STUDY.model_copy(update={"rounds": STUDY.rounds.model_copy(update={"deadline_s": 1.0})})
    grid = at(hospitals, study, 22, east={"train": lambda _: None}, south={"train": lambda _: None})
    runs, _, go = run_of(tmp_path, grid, study)
    go()
    assert [(c["answered"], c["still_training"]) for c in rounds_of(runs)] == [
        (["north"], ["east", "south"])
    ] * 4
    assert runs.get("small-1").state == "finished"


def test_a_round_without_a_quorum_ends_the_run_and_says_who_still_trains(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = STUDY.model_copy(update={"rounds": STUDY.rounds.model_copy(update={"deadline_s": 0.5})})
    grid = at(hospitals, study, 23, **{name: {"train": lambda _: None} for name in SITES})
    _, _, go = run_of(tmp_path, grid, study)
    with pytest.raises(OutOfTime, match="0 of 1 answers; still training: east, north, south"):
        go()


class Killed(BaseException):
    """The end of the server's process."""


def test_a_run_that_is_taken_up_asks_a_slow_site_the_same_again_and_ends_with_the_same_model(
    hospitals: dict[str, SiteHome], tmp_path: Path, done: Done
) -> None:
    """The process dies in round 3, where south still trains on the first weights."""
    first = Slow(at(hospitals, STUDY, run_id=25), {("south", 1): NEVER})
    north = first.grid.sites["north"].script

    def dies(task: Task) -> Any:
        if task.round == 3:
            raise Killed
        return north(task)

    first.grid.sites["north"].script = dies
    runs, registry, go = run_of(tmp_path / "run", first.grid, STUDY)
    with pytest.raises(Killed):
        go()
    assert sent_before(runs, "small-1", 2) == {"south": 1}
    again = Slow(at(hospitals, STUDY, run_id=25), COMES)
    run_of_again(runs, registry, again.grid)
    asked = [task for task in again.grid.sites["south"].asked if task.kind == "train"]
    before = [task for task in first.grid.sites["south"].asked if task.kind == "train"]
    assert [task.round for task in asked] == [1, 4]
    assert digest_of(asked[0]) == digest_of(before[0])
    assert rounds_of(runs)[2]["staleness"] == {"north": 0, "south": 2}
    for number in (1, 2, 3, 4):
        folder = f"round-{number:04d}"
        assert checkpoint_sha256(registry / folder) == checkpoint_sha256(done.registry / folder)
    assert {fact["round"] for _, _, fact in runs.facts("small-1", SENT)} == {1, 2, 3, 4}


def run_of_again(runs: Any, registry: Path, grid: PostOffice) -> None:
    from fedai_server.server_app import conduct

    conduct(grid, STUDY, "small-1", runs, registry)
