"""Rights that change while a site works: the next batch knows it, and nothing of a withdrawn case leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site import consents as consents_module
from fedai_site import influence
from fedai_site.alone import train_alone
from fedai_site.client_app import Bench
from fedai_site.cohort import select
from fedai_site.consents import PSEUDONYM, Consent, Consents
from fedai_site.erasure import withdraw
from fedai_site.home import SiteHome
from fedai_site.replies import keep, place
from fedai_site.rights import find_patients
from homes import make_home
from replies_to import STUDY, task_of
from test_agent import agent_at, answered, lines

import fedai.training
from fedai.errors import TrainingError
from fedai.wire import Reply


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=28)


@pytest.fixture
def home(filled: SiteHome, tmp_path: Path) -> SiteHome:
    """A copy, times of files and all."""
    return SiteHome(shutil.copytree(filled.folder, tmp_path / "north"), filled.settings)


def patient_in(home: SiteHome, split: str) -> str:
    return select(home.folder, STUDY).splits[split][0].patient


def leave(home: SiteHome, patient: str) -> None:
    withdraw(home, find_patients(home, [patient], None))


def restrict(home: SiteHome, patient: str, scope: str = "GRU; NCU", expires: str = "") -> None:
    with Consents(home.folder) as consents:
        consents.put([Consent(PSEUDONYM, patient, "consent", scope, expires, "")])


class Batches:
    """Every batch that is drawn; `then` happens once, when so many were."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int, then: Callable[[], None]) -> None:
        self.drawn: list[list[bytes]] = []
        to_input = fedai.training.to_input

        def watched(images: Any, device: Any) -> Any:
            self.drawn.append([image.tobytes() for image in images])
            if len(self.drawn) == after:
                then()
            return to_input(images, device)

        patch.setattr(fedai.training, "to_input", watched)

    def holding(self, images: list[bytes]) -> list[int]:
        return [at for at, batch in enumerate(self.drawn) if set(batch) & set(images)]


def images_of(bench: Bench, patient: str) -> list[bytes]:
    at = [number for number, name in enumerate(bench.patients("train")) if name == patient]
    return [bench.images("train")[number].tobytes() for number in at]


def same(a: Reply, b: Reply) -> bool:
    return a.metrics == b.metrics and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)


@pytest.mark.parametrize("change", [leave, restrict])
def test_the_next_batch_no_longer_holds_the_patient(
    change: Callable[[SiteHome, str], None], home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, patient = Bench(home, STUDY, lambda: True), patient_in(home, "train")
    images = images_of(bench, patient)
    batches = Batches(monkeypatch, 3, lambda: change(home, patient))
    reply = bench.answer(task_of("train"), 7)
    assert len(images) == 2
    assert all(at < 3 for at in batches.holding(images))
    assert len(batches.drawn) == 3 + reply.metrics["steps"]
    assert same(reply, Bench(home, STUDY, lambda: True).answer(task_of("train"), 8))  # as if never there


def test_influence_tells_what_left_from_what_was_thrown_away(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, patient, other = Bench(home, STUDY, lambda: True), *patients_of(home, 2)
    bench.answer(task_of("train"), 7)
    with monkeypatch.context() as patch:
        Batches(patch, 2, lambda: leave(home, patient))
        bench.answer(task_of("train", round=2), 7)
    bench.answer(task_of("train_alone"), 7)
    told = [(use.task, use.round, use.came, use.cases) for use in influence.uses_of(home.catalogue, patient)]
    assert told == [("train", 1, "answered", {"train": 2}), ("train", 2, "discarded", {"train": 2})]
    told = [(use.task, use.round, use.came) for use in influence.uses_of(home.catalogue, other)]
    assert told == [
        ("train", 1, "answered"), ("train", 2, "discarded"), ("train", 2, "answered"),
        ("train_alone", 0, "answered"),
    ]  # fmt: skip


def patients_of(home: SiteHome, number: int) -> list[str]:
    return list(dict.fromkeys(case.patient for case in select(home.folder, STUDY).splits["train"]))[:number]


def test_scoring_begins_again_without_the_patient(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, patient = Bench(home, STUDY, lambda: True), patient_in(home, "test")
    cases = len(bench.labels("test"))
    images = Bench.images

    def withdrawn_before_the_first_batch(self: Bench, split: str) -> Any:
        found = images(self, split)
        if len(found) == cases:
            leave(home, patient)
        return found

    monkeypatch.setattr(Bench, "images", withdrawn_before_the_first_batch)
    scored = bench.answer(task_of("score", model="federated"), 7).metrics["cases"]
    assert scored == cases - 3 * 2, "of this class two patients are left: of so few nothing is told"


def test_a_withdrawal_while_images_are_read_is_no_error(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedai_site import cache

    bench, patient = Bench(home, STUDY, lambda: True), patient_in(home, "train")
    pixels = cache._pixels

    def withdrawn_meanwhile(case: Any) -> Any:
        if case.patient == patient:
            leave(home, patient)
        return pixels(case)

    cases = len(bench.labels("train"))
    monkeypatch.setattr(cache, "_pixels", withdrawn_meanwhile)
    assert bench.answer(task_of("train"), 7).metrics["cases"] == cases - 2


def test_a_record_that_takes_nothing_away_stops_nothing(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, patient = Bench(home, STUDY, lambda: True), patient_in(home, "test")
    steps = bench.answer(task_of("train"), 7).metrics["steps"]
    batches = Batches(monkeypatch, 2, lambda: restrict(home, patient, "GRU"))
    assert bench.answer(task_of("train", round=2), 7).metrics["steps"] == steps
    assert len(batches.drawn) == steps


def test_consent_ends_at_midnight_in_a_run_that_goes_on(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, patient = Bench(home, STUDY, lambda: True), patient_in(home, "train")
    restrict(home, patient, "GRU", date.today().isoformat())
    cases = bench.answer(task_of("train"), 7).metrics["cases"]

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date.today() + timedelta(days=1)

    monkeypatch.setattr(consents_module, "date", Tomorrow)
    assert bench.answer(task_of("train", round=2), 7).metrics["cases"] == cases - 2


def test_patients_who_consent_meanwhile_wait_for_the_next_run(home: SiteHome) -> None:
    patient = patient_in(home, "train")
    restrict(home, patient)
    bench = Bench(home, STUDY, lambda: True)
    cases = bench.answer(task_of("train"), 7).metrics["cases"]
    restrict(home, patient, "GRU")
    assert bench.answer(task_of("train", round=2), 7).metrics["cases"] == cases
    bench.answer(task_of("ready"), 8)
    assert bench.answer(task_of("train"), 8).metrics["cases"] == cases + 2


def test_an_answer_on_its_way_out_stays_here(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last moment: the work is done and kept, the message is packed."""
    from fedai_site import agent, approvals

    approvals.approve(home.approvals, STUDY, "tests")
    patient, pack_out = patient_in(home, "train"), agent.Agent._pass_out

    def withdrawn_first(self: Any, *words: Any) -> Any:
        leave(home, patient)
        return pack_out(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(agent.Agent, "_pass_out", withdrawn_first)
        working = agent_at(home)
        assert answered(working, task_of("train")).message.has_error()
    assert [(line["kind"], line["code"]) for line in lines(home)] == [("error", "TRAINING")]
    assert not list(home.runs.rglob("train-*.npz"))
    assert answered(working, task_of("train")).message.has_content()
    assert lines(home)[-1]["metrics"]["cases"] == len(working._bench(STUDY).labels("train"))


def test_an_answer_that_was_kept_just_after_a_withdrawal_is_made_again(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedai_site import approvals, replies

    approvals.approve(home.approvals, STUDY, "tests")
    patient, kept = patient_in(home, "train"), []

    def withdrawn_meanwhile(path: Path, reply: Reply) -> None:
        if not kept:
            leave(home, patient)
        keep(path, reply)
        kept.append(reply.metrics["cases"])

    monkeypatch.setattr(replies, "keep", withdrawn_meanwhile)
    task = task_of("train")
    assert answered(agent_at(home), task).message.has_content()
    assert kept[0] == kept[1] + 2
    found = replies.find(place(home.runs, task, 7))
    assert found is not None
    assert found.metrics["cases"] == kept[1]


def test_training_alone_stops_and_says_whom_it_used(home: SiteHome, tmp_path: Path, monkeypatch: Any) -> None:
    patient, other = patients_of(home, 2)
    train_alone([home], STUDY, tmp_path / "first", may_go_on=lambda: True)
    Batches(monkeypatch, 2, lambda: leave(home, patient))
    with pytest.raises(TrainingError, match="training was stopped"):
        train_alone([home], STUDY, tmp_path / "second", may_go_on=lambda: True)
    assert not (tmp_path / "second").exists()
    runs = [(Path(use.run).name, use.came) for use in influence.uses_of(home.catalogue, other)]
    assert runs == [("first", "answered"), ("second", "failed")]


def test_a_use_that_can_not_be_noted_does_not_happen(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(home, STUDY, lambda: True)
    batches = Batches(monkeypatch, 1, lambda: None)

    def full(*_: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(influence, "_begin", full)
    with pytest.raises(OSError, match="full"):
        bench.answer(task_of("train"), 7)
    assert batches.drawn == []


def test_a_round_that_uses_the_same_patients_shares_their_roster(home: SiteHome) -> None:
    import sqlite3

    bench = Bench(home, STUDY, lambda: True)
    for number in (1, 2):
        bench.answer(task_of("train", round=number), 7)
    with sqlite3.connect(home.catalogue) as database:
        assert database.execute("SELECT count(*), count(DISTINCT roster) FROM uses").fetchone() == (2, 1)
        patients = database.execute("SELECT count(DISTINCT patient) FROM rosters").fetchone()[0]
    splits = select(home.folder, STUDY).splits
    assert patients == len({case.patient for name in ("train", "validation") for case in splits[name]})
