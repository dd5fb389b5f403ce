"""How far a run is, from what its process wrote down."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from fedai_server.continuation import LOCK, conducting, last_beat
from fedai_server.progress import Progress, progress_of
from fedai_server.runs import RunDatabase
from fedai_server.server_app import conduct
from flwr.app import Error
from post_office import Answer, PostOffice, Site
from replies_to import reply_to
from studies import small_study

from fedai import wire
from fedai.errors import FedaiError, OutOfTime
from fedai.logs import JsonLines, about
from fedai.wire import Task

pytestmark = pytest.mark.usefixtures("quick")
STUDY = small_study(rounds={"grace_s": 0.2, "deadline_s": 1, "waiting_s": 5})


def only(runs: RunDatabase, registry: Path) -> Progress:
    (found,) = progress_of(runs, registry)
    return found


def test_a_run_under_way_tells_who_was_asked_who_answered_and_how_much_went_over(tmp_path: Path) -> None:
    """Two rounds: in the first all answer; in the second north answers, east refuses, south says nothing."""
    runs, looks = RunDatabase(tmp_path / "runs.sqlite"), list[Progress]()
    name = runs.plan(STUDY)

    def answer(task: Task) -> Answer:
        return reply_to(task, STUDY)

    def north(task: Task) -> Answer:
        looks.append(only(runs, tmp_path))
        return reply_to(task, STUDY)

    def east(task: Task) -> Answer:
        return Error(wire.ERROR_NUMBER, "DATA 0123456789ab") if task.round == 2 else reply_to(task, STUDY)

    def south(task: Task) -> Answer:
        return None if task.round == 2 else reply_to(task, STUDY)

    grid = PostOffice({"north": Site(north), "east": Site(east), "south": Site(south)})
    with pytest.raises(OutOfTime, match="round 2"):
        conduct(grid, STUDY, name, runs, tmp_path / name)
    assert runs.get(name).state == "failed"
    assert progress_of(runs, tmp_path) == []  # it is over
    ready, first, second = looks
    assert ready.question is not None
    assert (ready.question.task, ready.question.awaited) == ("ready", ("east", "north", "south"))
    assert first.question is not None
    assert (first.question.task, first.question.round, first.closed, first.rounds) == ("train", 1, 0, 2)
    assert second.question is not None
    assert (second.question.round, second.closed) == (2, 1)
    assert second.last_round == {"answered": 3, "late": 0, "refused": 0}
    update = sum(array.nbytes for array in grid.sites["north"].asked[1].arrays.values())
    assert (ready.sent, first.sent, second.sent) == (0, 3 * update, 6 * update)
    assert second.received - first.received > 3 * update  # updates hold validation's histograms too
    told = [fact for _, _, fact in runs.facts(name, "answer")][6:]
    assert [(fact["site"], fact["refused"]) for fact in told] == [
        ("north", ""),
        ("east", "DATA 0123456789ab"),
    ]


def test_a_question_is_open_until_its_round_closes_and_knows_whom_it_waits_for(tmp_path: Path) -> None:
    runs = RunDatabase(tmp_path / "runs.sqlite")
    name = runs.plan(STUDY)
    begun = time.time()
    asked = {"task": "train", "round": 1, "sites": ["east", "north", "south"], "deadline_s": 60, "bytes": 300}
    runs.add(name, "asked", asked)
    assert only(runs, tmp_path).progress_at < begun  # to ask is no progress
    runs.add(name, "answer", {"site": "north", "refused": "", "bytes": 100})
    runs.add(name, "answer", {"site": "east", "refused": "DATA 0123456789ab", "bytes": 0})
    found = only(runs, tmp_path)
    assert found.question is not None
    assert found.question.is_open
    assert (found.question.answered, found.question.refused) == ({"north"}, {"east"})
    assert found.question.awaited == ("south",)
    assert 59 < found.question.until - begun < 65
    assert begun - 0.01 <= found.progress_at <= time.time()
    assert (found.sent, found.received) == (300, 100)
    runs.add(
        name, "round_closed", {"number": 1, "answered": ["north"], "late": ["south"], "refused": {"east": ""}}
    )
    found = only(runs, tmp_path)
    assert found.question is not None
    assert not found.question.is_open
    assert found.last_round == {"answered": 1, "late": 1, "refused": 1}


def test_the_round_loop_beats_by_the_lock_of_its_run(tmp_path: Path) -> None:
    runs = RunDatabase(tmp_path / "runs.sqlite")
    name = runs.plan(STUDY)
    started = only(runs, tmp_path).beat_at
    assert last_beat(tmp_path / name) == 0
    with conducting(tmp_path / name, 7):
        os.utime(tmp_path / name / LOCK, (1, started + 1000))
        assert only(runs, tmp_path).beat_at == started + 1000
        os.utime(tmp_path / name / LOCK, (1, 1))
        with pytest.raises(OutOfTime):  # nobody is there; but the loop turned
            conduct(PostOffice({}), small_study(rounds={"waiting_s": 1}), name, runs, tmp_path / name)
        assert time.time() - last_beat(tmp_path / name) < 60


def test_a_log_in_json_says_of_each_line_which_run_round_and_site_it_is_about(tmp_path: Path) -> None:
    runs, out = RunDatabase(tmp_path / "runs.sqlite"), io.StringIO()
    name = runs.plan(STUDY)
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    logging.getLogger("fedai").addHandler(handler)
    try:
        wrong = Site(
            lambda task: reply_to(task, STUDY, value=np.nan) if task.round else reply_to(task, STUDY)
        )
        right = Site(lambda task: reply_to(task, STUDY))
        with pytest.raises(FedaiError):
            conduct(
                PostOffice({"north": wrong, "east": wrong, "south": right}),
                STUDY,
                name,
                runs,
                tmp_path / name,
            )
    finally:
        logging.getLogger("fedai").removeHandler(handler)
        about()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    refusals = [line for line in lines if "refused" in line["text"]]
    assert {line["site"] for line in refusals} == {"north", "east"}
    assert {(line["run"], line["round"], line["task"]) for line in refusals} == {(name, 1, "train")}
