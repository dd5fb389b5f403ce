"""Hostile messages against egress: whatever is done to an answer, either it still is exactly the task's and
within the policy, or nothing of it leaves and the ledger has a line that says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from fedai_site.budget import Budget
from fedai_site.egress import Egress, check_norm
from fedai_site.fleet import pack
from fedai_site.permit import Permit
from fedai_site.policy import Limits
from fedai_site.sent import Sent
from fedai_site.tripwire import check_pixels, lay
from hypothesis import given, settings
from hypothesis import strategies as st
from replies_to import LAYOUT, STUDY, message_of, reply_to, task_of
from studies import draw_images

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.flower import read_reply, reply_record
from fedai.heads import make_head
from fedai.ledger import Ledger
from fedai.signatures import read_key, write_key
from fedai.wire import Reply, Task

PLANTED = "Hong^Gildong"
KINDS = sorted(wire.REPLY_OF)
LARGEST_NORM, LARGEST_MB = 100.0, 0.5
IMAGES = draw_images(12, size=16)[0]
WIRE = lay([IMAGES])


def _head() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        write_key(Path(folder) / "key")
        return make_head(3, "0" * 64, read_key(Path(folder) / "key"))


HEAD = _head()


@contextmanager
def door() -> Iterator[tuple[Ledger, Callable[[Reply, Task], bool]]]:
    """A ledger, and egress as the agent uses it: True where the message may leave."""
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        egress = Egress(ledger, Sent(Path(folder) / "sent", 1))
        limits = Limits(update_norm=LARGEST_NORM, megabytes=LARGEST_MB)
        budget = Budget(Path(folder), Permit(id="a" * 32, limits=limits))

        def passes(reply: Reply, task: Task) -> bool:
            parcel = pack(reply_record(reply), message_of(task))
            guards = (
                lambda read: budget.check_bytes(parcel.size),
                lambda read: check_norm(read, limits.update_norm),
                lambda read: check_pixels(read, WIRE),
            )
            given = {"size": parcel.size, "objects": parcel.objects, "guards": guards}
            try:
                read = read_reply(reply_record(reply))
                egress.pass_reply(read, task, STUDY, LAYOUT, task.run, **given)
            except RefusedByPolicy:
                return False
            return True

        yield ledger, passes


def is_the_tasks(reply: Reply, task: Task) -> bool:
    """Said once more, and in other words than wire.py: exactly the form, finite, counts, within limits."""
    form = wire.form_of(task, STUDY, LAYOUT)
    envelope = (reply.kind, reply.task, reply.study, reply.round, reply.model)
    arrays = {name: (str(array.dtype), array.shape) for name, array in reply.arrays.items()}
    numbers = [*reply.metrics.values(), *(float(np.sum(array)) for array in reply.arrays.values())]
    return (
        envelope == (form.kind, task.kind, task.study, task.round, task.model)
        and type(reply.round) is int
        and arrays == dict(form.arrays)
        and {name: type(value) for name, value in reply.metrics.items()} == dict(form.metrics)
        and set(reply.words) == set(form.words)
        and PLANTED not in repr(reply.words)
        and all(np.isfinite(number) for number in numbers)
        and reply.ledger in ({}, HEAD)
        and (reply.kind != "update" or np.linalg.norm(reply.arrays["parameters"]) <= LARGEST_NORM)
        and sum(array.nbytes for array in reply.arrays.values()) <= LARGEST_MB * 1e6
    )


odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=12),
    st.just(PLANTED), st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip
dtypes = st.sampled_from(["float32", "float64", "float16", "int64", "uint32", "uint8", "bool"])


@st.composite
def arrays_of(draw: Any, was: Any) -> Any:
    """Another array in an array's place: its dtype, shape or content changed, or nothing."""
    change = draw(st.sampled_from(["dtype", "longer", "deeper", "odd", "negative", "large", "image", "same"]))
    new = was.copy()
    if change == "dtype":
        return new.astype(draw(dtypes))
    if change == "longer":
        return np.concatenate([new.reshape(-1), np.frombuffer(PLANTED.encode(), np.uint8).astype(new.dtype)])
    if change == "deeper":
        return new[None]
    if not new.size or change == "same":
        return new
    place = draw(st.integers(0, new.size - 1))
    if change == "odd" and new.dtype.kind == "f":
        new.flat[place] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if change == "negative" and new.dtype.kind in "if":
        new.flat[place] = -1
    if change == "large" and new.dtype.kind == "f":
        new.flat[place] = draw(st.sampled_from([1e3, 1e30]))
    if change == "image" and new.size >= 256 and new.ndim == 1:
        image = IMAGES[draw(st.integers(0, len(IMAGES) - 1))].reshape(-1)
        new[:256] = image.astype(new.dtype) * (new.dtype.type(0.001) if new.dtype.kind == "f" else 1)
    return new


@st.composite
def changed(draw: Any, reply: Reply) -> Reply:
    """A reply after one to three changes, some of which change nothing."""
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(["arrays", "metrics", "words", "ledger", "field"]))
        if part == "field":
            name = draw(st.sampled_from(["kind", "task", "study", "round", "model", "layout"]))
            reply = replace(reply, **{name: draw(odd_values)})
            continue
        given_part = dict(getattr(reply, part))
        name = draw(st.sampled_from([*sorted(given_part), PLANTED, "more"]))
        action = draw(st.sampled_from(["drop", "change"]))
        if action == "drop":
            given_part.pop(name, None)
        elif part == "arrays":
            given_part[name] = draw(arrays_of(given_part.get(name, np.zeros(3, np.float32))))
        else:
            given_part[name] = draw(odd_values)
        reply = replace(reply, **{part: given_part})
    return reply


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_not_one_byte_out_of_policy_passes_and_each_refusal_has_its_line(
    kind: Any, data: st.DataObject
) -> None:
    task = task_of(kind)
    sound = replace(reply_to(task, value=0.01), ledger=HEAD)
    reply = data.draw(changed(sound))
    with door() as (ledger, passes):
        try:
            reply_record(reply)
        except (TypeError, ValueError, AttributeError):
            return  # Flower itself can't carry it
        if passes(reply, task):
            assert is_the_tasks(reply, task)
            assert [line["kind"] for line in ledger.lines()] == [reply.kind]
            return
        lines = list(ledger.lines())
        assert [line["kind"] for line in lines] in ([], ["refused"])
        assert lines or not _reads(reply), "what can't even be read is sealed by the agent, see below"
        assert PLANTED not in ledger.path.read_text()
        assert not (ledger.path.parent / "sent").exists()


def _reads(reply: Reply) -> bool:
    try:
        read_reply(reply_record(reply))
    except RefusedByPolicy:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_answer_passes(kind: Any) -> None:
    task = task_of(kind)
    with door() as (ledger, passes):
        assert passes(replace(reply_to(task, value=0.01), ledger=HEAD), task)
        assert ledger.verify() == 1


def _reason(reply: Reply, task: Task) -> str:
    with door() as (ledger, passes):
        assert not passes(reply, task)
        (line,) = ledger.lines()
        assert line["kind"] == "refused"
        return str(line["reason"])


def test_each_guard_has_its_own_reason_in_the_ledger() -> None:
    task = task_of("train")
    sound = reply_to(task, value=0.01)
    parameters = sound.arrays["parameters"]
    image = parameters.copy()
    image[100 : 100 + 256] = IMAGES[3].reshape(-1) * np.float32(0.001)

    def reason(array: Any) -> str:
        return _reason(replace(sound, arrays={**sound.arrays, "parameters": array}), task)

    assert reason(parameters * np.float32(1e4)) == "UPDATE_NORM"
    assert reason(image) == "MEMORISED_IMAGE"
    assert reason(parameters.astype(np.float64)) == "NOT_THE_TASKS"
    assert _reason(replace(sound, ledger=HEAD | {"lines": 4}), task) == "NOT_THE_TASKS"


def test_the_byte_budget_of_an_approval_ends_what_leaves() -> None:
    task = task_of("train")
    with door() as (ledger, passes), TemporaryDirectory() as folder:
        assert passes(reply_to(task, value=0.01), task)
        size = next(ledger.lines())["bytes"]
        budget = Budget(Path(folder), Permit(id="b", limits=Limits(megabytes=2.5 * size / 1e6)))
        for _ in range(2):
            budget.check_bytes(size)
            budget.spend(sent=size)
        with pytest.raises(RefusedByPolicy, match="BYTES_SPENT"):
            budget.check_bytes(size)


def test_a_norm_within_the_bound_passes_and_scores_have_none() -> None:
    task = task_of("train")
    sound = reply_to(task, value=0.01)
    norm = float(np.linalg.norm(sound.arrays["parameters"].astype(np.float64)))
    check_norm(sound, norm * 1.0001)
    check_norm(sound, None)
    with pytest.raises(RefusedByPolicy, match="UPDATE_NORM"):
        check_norm(sound, norm * 0.9999)
    check_norm(reply_to(task_of("score")), 1e-9)


def test_a_ledgers_refusal_holds_no_content() -> None:
    task = task_of("train")
    sound = reply_to(task, value=0.01)
    bad = replace(sound, words={PLANTED: PLANTED}, metrics={**sound.metrics, PLANTED: 1})
    with door() as (ledger, passes):
        assert not passes(bad, task)
        (line,) = ledger.lines()
        assert set(line) == {
            "seq",
            "time",
            "kind",
            "run",
            "study",
            "task",
            "why",
            "reason",
            "previous",
            "hash",
        }
        assert PLANTED not in json.dumps(line)
