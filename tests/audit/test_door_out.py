"""Wall 2: what isn't exactly the task's message is refused, nothing of it is sent, and the ledger knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_site import BENCH, PLANTED
from fedai_server.launch import halt
from fedai_site.egress import Egress
from federation_processes import wait_for
from federation_sites import Federation, study_of
from hypothesis import given, settings
from hypothesis import strategies as some
from received import arrays_in, messages_in, objects_in

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.flower import read_reply, reply_record
from fedai.ledger import Ledger
from fedai.study import Study
from fedai.weights import Layout
from fedai.wire import Reply, Task

Mutation = Callable[[Reply], Reply]


@cache
def facts() -> tuple[Study, Layout]:
    from fedai.tasks.classification import build_network
    from fedai.weights import layout_of

    study = study_of("door", rounds=3)
    return study, layout_of(build_network(study))


def task_of(kind: Any) -> Task:
    study, _ = facts()
    model = "federated" if kind == "score" else ""
    models = ("federated", "local:north") if kind == "place" else ()
    return Task(kind=kind, study=study.sha256, run="door-1", round=2, model=model, models=models)


def reply_to(task: Task) -> Reply:
    """A reply that fits, values drawn from nothing in particular."""
    study, layout = facts()
    form = wire.form_of(task, study, layout)
    return Reply(
        kind=form.kind,
        task=task.kind,
        study=task.study,
        round=task.round,
        model=task.model,
        layout=layout.sha256 if form.kind == "update" else "",
        arrays={name: np.ones(shape, dtype) for name, (dtype, shape) in form.arrays.items()},
        metrics={name: kind(3) for name, kind in form.metrics.items()},
        words=dict.fromkeys(form.words, "1.2.3"),
    )


def passes(reply: Reply, task: Task) -> bool:
    """Whether egress would let it out, after it went through the records that travel."""
    try:
        wire.check(read_reply(reply_record(reply)), task, *facts())
    except RefusedByPolicy:
        return False
    return True


KINDS = sorted(wire.REPLY_OF)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reply_that_fits_passes(kind: str) -> None:
    assert passes(reply_to(task_of(kind)), task_of(kind))


def _with_array(name: str, array: Any) -> Mutation:
    return lambda reply: replace(reply, arrays={**reply.arrays, name: array})


def _without(part: str, name: str) -> Mutation:
    return lambda reply: replace(
        reply, **{part: {k: v for k, v in getattr(reply, part).items() if k != name}}
    )


def _with(part: str, name: str, value: Any) -> Mutation:
    return lambda reply: replace(reply, **{part: {**getattr(reply, part), name: value}})


def _renamed(part: str, name: str, new: str) -> Mutation:
    return lambda reply: replace(
        reply, **{part: {new if k == name else k: v for k, v in getattr(reply, part).items()}}
    )


DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "uint8",
    "int16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "bool",
    ">f4",
)
names = some.text("abcdefghijklmnopqrstuvwxyz_^0123456789", min_size=1, max_size=20)


@some.composite
def mutations(draw: Any, reply: Reply) -> tuple[str, Mutation]:
    """One change of a valid reply, and what it is."""
    new = draw(names.filter(lambda name: name not in {*reply.arrays, *reply.metrics, *reply.words}))
    array = draw(some.sampled_from(sorted(reply.arrays)))
    was = reply.arrays[array]
    options: list[tuple[str, Mutation]] = [
        (
            "array too many",
            _with_array(new, np.zeros(draw(some.integers(0, 5)), draw(some.sampled_from(DTYPES)))),
        ),
        ("array missing", _without("arrays", array)),
        ("array renamed", _renamed("arrays", array, new)),
        ("metric too many", _with("metrics", new, draw(some.integers(0, 9)))),
        ("word too many", _with("words", new, "1.0")),
        ("array longer", _with_array(array, np.ones((*was.shape[:-1], was.shape[-1] + 1), was.dtype))),
        ("array deeper", _with_array(array, was[None])),
        ("field", _field(draw, reply)),
    ]
    dtype = draw(some.sampled_from([one for one in DTYPES if np.dtype(one) != was.dtype]))
    options.append(("array dtype", _with_array(array, was.astype(dtype))))
    if was.size and was.dtype.kind == "f":
        odd = was.copy()
        odd.flat[draw(some.integers(0, was.size - 1))] = draw(some.sampled_from([np.nan, np.inf, -np.inf]))
        options.append(("array not finite", _with_array(array, odd)))
    if reply.metrics:
        metric = draw(some.sampled_from(sorted(reply.metrics)))
        value = reply.metrics[metric]
        odd_value = draw(
            some.sampled_from([float(value) if isinstance(value, int) else int(value), float("nan"), [value]])
        )
        options += [("metric missing", _without("metrics", metric)),
                    ("metric renamed", _renamed("metrics", metric, new)),
                    ("metric odd", _with("metrics", metric, odd_value))]  # fmt: skip
    if reply.words:
        word = draw(some.sampled_from(sorted(reply.words)))
        odd_word = draw(
            some.sampled_from([PLANTED, "", "1.2.3 ", "1.2\n", "v1", "1" * 33, "1.2-Hong", 5, 1.5, b"1.2"])
        )
        options += [("word missing", _without("words", word)), ("word odd", _with("words", word, odd_word))]
    return draw(some.sampled_from(options))


def _field(draw: Any, reply: Reply) -> Mutation:
    odd: dict[str, list[Any]] = {
        "kind": [kind for kind in ("status", "update", "score", "note") if kind != reply.kind],
        "task": [kind for kind in (*KINDS, PLANTED) if kind != reply.task],
        "study": ["0" * 64, "", PLANTED],
        "round": [0, 1, 3, -1, "2", 2.0, True, None],
        "model": [PLANTED, "local:south", None, [reply.model]],
        "layout": [PLANTED, "0" * 64, None],
        "ledger": [
            {"note": PLANTED},
            {"lines": 1, "hash": "0" * 64, "key": "0" * 64, "signature": "0" * 128},
        ],
    }
    name = draw(some.sampled_from(sorted(odd)))
    value = draw(some.sampled_from(odd[name]))
    return lambda reply: replace(reply, **{name: value})


@pytest.mark.parametrize("kind", KINDS)
@given(data=some.data())
@settings(max_examples=40, deadline=None)
def test_one_change_of_a_valid_reply_and_it_is_refused(kind: str, data: some.DataObject) -> None:
    task = task_of(kind)
    what, mutate = data.draw(mutations(reply_to(task)))
    try:
        changed = mutate(reply_to(task))
        record = reply_record(changed)
    except (TypeError, ValueError):
        return  # Flower itself can't carry it
    del record
    assert not passes(changed, task), what


def test_a_ledger_that_cannot_be_written_lets_nothing_pass(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    task = task_of("ready")
    with pytest.raises(Exception, match="ledger"):
        Egress(Ledger(tmp_path / "ledger.jsonl")).pass_reply(reply_to(task), task, *facts(), task.run, size=1)


# ---------------------------------------------------------------- with real agents


@pytest.mark.federation
@pytest.mark.parametrize("fault", BENCH)
def test_what_a_bench_answers_wrongly_is_refused_by_egress(
    misbehaving: dict[str, dict[str, Any]], federation: Federation, fault: str
) -> None:
    closed = misbehaving[fault]
    assert closed["answered"] == ["north"]
    code = closed["refused"]["west"]
    assert re.fullmatch(r"REFUSED [0-9a-f]{12}", code)
    lines = federation.sites["west"].ledger("faults-1")
    place = next(i for i, line in enumerate(lines) if line.get("reference") == code.split()[1])
    assert lines[place]["kind"] == "error"
    assert lines[place - 1]["kind"] == "refused"
    assert lines[place - 1]["why"].startswith("the message is not a update of this task")


@pytest.mark.federation
def test_of_what_egress_refused_nothing_was_sent(
    misbehaving: dict[str, dict[str, Any]], federation: Federation
) -> None:
    west, run = federation.node_ids()["west"], federation.runs.get("faults-1").flower_id
    codes = {misbehaving[fault]["refused"]["west"] for fault in BENCH}
    errors = [message.error for message in messages_in(federation.received) if message.node_id == west]
    assert codes <= set(errors)
    lines = federation.sites["west"].ledger("faults-1")
    during = [line for line in lines if line.get("round", 0) <= len(misbehaving)]  # afterwards it is honest
    allowed = {array["sha256"] for line in during for array in line.get("arrays", [])}
    first = federation.sites["west"].home.folder / "sent.jsonl"
    sent = [json.loads(line)["ledger"] for line in first.read_text().splitlines()]
    refused_first = sent[1 : 1 + len(BENCH)]  # after `ready`, before the faults that go past egress
    assert {line["kind"] for line in refused_first} == {"error"}
    assert allowed == {array["sha256"] for array in sent[0]["arrays"]}, "of west only `ready` passed egress"
    assert arrays_in(federation.received, west, run) - allowed, "what it sent past egress is seen"
    at_egress = [content for node, _, content in objects_in(federation.received) if node != west]
    assert not any(PLANTED.encode() in content for content in at_egress)


@pytest.mark.federation
def test_the_ledgers_line_is_on_disk_before_the_message_is_sent(
    misbehaving: dict[str, dict[str, Any]], federation: Federation
) -> None:
    home = federation.sites["west"].home.folder
    sent = [json.loads(line) for line in (home / "sent.jsonl").read_text().splitlines()][: 1 + len(BENCH)]
    assert sent[0]["ledger"]["kind"] == "status"
    assert sent[0]["ledger"]["bytes"] == sent[0]["size"]
    sequence = [one["ledger"]["seq"] for one in sent]
    assert sequence == sorted(set(sequence)), "each message had a line of its own when it was sent"


@pytest.mark.federation
def test_an_agent_whose_ledger_cannot_be_written_sends_nothing_and_ends(
    misbehaving: dict[str, dict[str, Any]], federation: Federation
) -> None:
    west = federation.sites["west"]
    (federation.folder / "faults.json").write_text(json.dumps({1: "the ledger can't be written"}))
    study = federation.study("no-ledger", sites=("north", "west"), quorum=1)
    run = federation.start_run(study)
    node, flower = federation.node_ids()["west"], federation.runs.get(run).flower_id
    assert west.process is not None
    wait_for(lambda: west.process is not None and west.process.poll() is not None, 120, "the agent's end")
    halt(federation.home, run)
    west.home.ledger.rmdir()
    west.home.ledger.with_suffix(".kept").rename(west.home.ledger)
    assert west.process.returncode == 3
    assert "ledger" in west.output.read_text().splitlines()[-1]
    mine = [one for one in messages_in(federation.received) if (one.node_id, one.run_id) == (node, flower)]
    assert len(mine) == 1  # ready; of the update not even an error, since that too needs a line
    (federation.folder / "faults.json").write_text("{}")
    west.start()
