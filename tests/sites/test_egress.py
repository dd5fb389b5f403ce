from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.egress import Egress, Sealed, seal
from fedai_site.quarantine import Quarantine, Reason
from hypothesis import given
from hypothesis import strategies as st
from replies_to import LAYOUT, STUDY, reply_to, task_of

from fedai import wire
from fedai.errors import DataError, FedaiError, RefusedByPolicy, TrainingError
from fedai.ledger import Ledger

NAME = "Hong_Gildong"


@pytest.fixture
def egress(tmp_path: Path) -> Egress:
    return Egress(Ledger(tmp_path / "ledger.jsonl"))


def pass_out(egress: Egress, reply: wire.Reply, task: wire.Task, run: str = "small-1") -> None:
    egress.pass_reply(reply, task, STUDY, LAYOUT, run, size=1234)


@pytest.mark.parametrize("kind", wire.REPLY_OF)
def test_what_was_asked_for_passes_and_is_in_the_ledger_first(kind: wire.TaskKind, egress: Egress) -> None:
    task = task_of(kind)
    reply = reply_to(task)
    pass_out(egress, reply, task)
    line = egress.ledger.last()
    assert line is not None
    told = {
        key: line[key]
        for key in ("kind", "run", "study", "task", "round", "model", "bytes", "metrics", "words")
    }
    assert told == {
        "kind": reply.kind,
        "run": "small-1",
        "study": STUDY.sha256,
        "task": kind,
        "round": task.round,
        "model": task.model,
        "bytes": 1234,
        "metrics": reply.metrics,
        "words": reply.words,
    }
    for fact in line["arrays"]:
        array = reply.arrays[fact["name"]]
        assert (fact["dtype"], fact["shape"]) == (str(array.dtype), list(array.shape))
        assert fact["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()
    assert len(line["arrays"]) == len(reply.arrays)
    assert egress.ledger.verify() == 1


def deviations() -> dict[str, dict[str, Any]]:
    sound = reply_to(task_of("train"))
    return {
        "an array too many": {"arrays": {**sound.arrays, NAME: np.zeros(3)}},
        "an array too few": {"arrays": {}},
        "another dtype": {
            "arrays": {**sound.arrays, "parameters": sound.arrays["parameters"].astype(np.float64)}
        },
        "another shape": {"arrays": {**sound.arrays, "parameters": sound.arrays["parameters"][:-1]}},
        "NaN": {"arrays": {**sound.arrays, "parameters": sound.arrays["parameters"] * np.float32(np.nan)}},
        "text in an array": {"arrays": {**sound.arrays, "parameters": np.array([NAME])}},
        "a metric too many": {"metrics": {**sound.metrics, NAME: 1}},
        "a metric of text": {"metrics": {**sound.metrics, "cases": NAME}},
        "a word": {"words": {"torch": NAME}},
        "another kind": {"kind": "score"},
        "another task": {"task": "score"},
        "another study": {"study": NAME},
        "another round": {"round": 2},
        "a model": {"model": NAME},
        "another layout": {"layout": NAME},
    }


@pytest.mark.parametrize("change", deviations().values(), ids=deviations())
def test_each_deviation_is_refused_and_recorded_without_its_content(
    change: dict[str, Any], egress: Egress
) -> None:
    task = task_of("train")
    with pytest.raises(RefusedByPolicy):
        pass_out(egress, dataclasses.replace(reply_to(task), **change), task)
    (line,) = egress.ledger.lines()
    assert (line["kind"], line["run"], line["task"]) == ("refused", "small-1", "train")
    assert NAME not in egress.ledger.path.read_text()


@pytest.mark.parametrize("run", ["", "../x", "a b", "A", "x" * 81, "홍길동", f"{NAME}\n"])
def test_a_run_with_an_odd_name_gets_nothing(run: str, egress: Egress) -> None:
    task = task_of("train")
    with pytest.raises(RefusedByPolicy, match="name of the run is odd"):
        pass_out(egress, reply_to(task), task, run)
    with pytest.raises(RefusedByPolicy, match="name of the run is odd"):
        egress.pass_error(Sealed("DATA", "0123456789ab"), run)


def test_nothing_passes_that_the_ledger_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("torn")
    egress, task = Egress(Ledger(tmp_path / "ledger.jsonl")), task_of("train")
    with pytest.raises(DataError):
        pass_out(egress, reply_to(task), task)
    with pytest.raises(DataError):
        egress.pass_error(seal(ValueError()), "small-1")


ERRORS = [
    DataError(f"can't read /export/{NAME}.dcm", where=NAME, hint=NAME),
    Quarantine(Reason.NOT_DICOM, NAME),
    TrainingError(NAME),
    RefusedByPolicy(NAME),
    FedaiError(NAME),
    ValueError(NAME),
    KeyError(NAME),
    MemoryError(),
    KeyboardInterrupt(NAME),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_leaves_as_a_code_and_a_reference_only(error: BaseException, egress: Egress) -> None:
    sealed = seal(error)
    assert wire.ERROR_PATTERN.fullmatch(str(sealed))
    egress.pass_error(sealed, "small-1")
    line = egress.ledger.last()
    assert line is not None
    assert (line["kind"], line["code"], line["reference"]) == ("error", sealed.code, sealed.reference)
    assert NAME not in egress.ledger.path.read_text()


def test_every_reference_is_another() -> None:
    assert len({seal(ValueError()).reference for _ in range(1000)}) == 1000


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_other_words_leave_as_an_error(code: str, reference: str) -> None:
    sealed = Sealed(code, reference)
    if wire.ERROR_PATTERN.fullmatch(str(sealed)):
        return
    with pytest.raises(RefusedByPolicy, match="only as a code and a reference"):
        Egress(Ledger(Path("/nowhere/ledger.jsonl"))).pass_error(sealed, "small-1")
