"""A site gone wrong, for tests: `fedai site start` whose answers to `train` are spoilt, by round.

`faulty_site.py PLAN site start HOME`: PLAN is a JSON file, round -> name of a fault. Those of `BENCH` spoil
what the training code answers; egress then stands in the way. Those of `PAST` send past egress, as a
site would that somebody has taken over; the server then stands in the way.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fedai_site import agent, fleet
from fedai_site.client_app import Bench
from fedai_site.fleet import Fleet, Parcel, pack
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fedai import wire
from fedai.cli.app import run
from fedai.flower import PACKED, reply_record
from fedai.wire import Reply, Task

PLANTED = "Planted^Smuggled^4711"
SMUGGLED = np.frombuffer(PLANTED.encode(), np.uint8)
Spoil = Callable[[Reply], Reply]


def with_arrays(**arrays: Any) -> Spoil:
    return lambda reply: replace(reply, arrays={**reply.arrays, **arrays})


def with_metrics(**metrics: Any) -> Spoil:
    return lambda reply: replace(reply, metrics={**reply.metrics, **metrics})


def changed(name: str, change: Callable[[Any], Any]) -> Spoil:
    return lambda reply: replace(reply, arrays={**reply.arrays, name: change(reply.arrays[name])})


def with_nan(array: Any) -> Any:
    spoilt = array.copy()
    spoilt[0] = np.nan
    return spoilt


BENCH: dict[str, Spoil] = {
    "array too many": with_arrays(notes=SMUGGLED),
    "array missing": lambda reply: replace(
        reply, arrays={k: v for k, v in reply.arrays.items() if k != "buffers"}
    ),
    "other dtype": changed("parameters", lambda a: a.astype(np.float64)),
    "other shape": changed("parameters", lambda a: np.append(a, np.float32(1))),
    "metric too many": with_metrics(**{PLANTED: 1}),
    "metric of another type": with_metrics(cases=12.0),
    "words": lambda reply: replace(reply, words={"note": PLANTED}),
    "NaN": changed("parameters", with_nan),
}


def _packed(record: RecordDict, content: bytes, given: Any = None) -> RecordDict:
    """The record with these bytes as its arrays, and `given` as what they are said to be."""
    record["arrays"] = ArrayRecord({PACKED: Array("uint8", (len(content),), PACKED, content)})
    return record if given is None else _head(record, arrays=given)


def _head(record: RecordDict, **changes: Any) -> RecordDict:
    """The record with a head of other words; None leaves one out."""
    head = {**json.loads(str(_part(record, "reply")["head"])), **changes}
    text = json.dumps({name: value for name, value in head.items() if value is not None})
    return _with(record, "reply", ConfigRecord({"head": text}))


def _part(record: Any, name: str) -> Any:
    return record[name]


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("parameters.npy", b"\0" * 64)
    return file.getvalue()


def _pickle(record: RecordDict) -> RecordDict:
    content = pickle.dumps(PLANTED)
    return _packed(record, content, [["parameters", "object", [len(content) // 8]]])


def _with(record: RecordDict, name: str, part: Any) -> RecordDict:
    record[name] = part
    return record


PAST: dict[str, Callable[[RecordDict], RecordDict | Error]] = {
    "past: empty bytes": lambda r: _packed(r, b""),
    "past: a pickle": _pickle,
    "past: a zip": lambda r: _packed(r, _zip()),
    "past: a terabyte announced": lambda r: _packed(r, bytes(64), [["parameters", "float32", [1 << 38]]]),
    "past: cut off": lambda r: _packed(r, _part(_part(r, "arrays"), PACKED).data[:-9]),
    "past: deep JSON": lambda r: _with(r, "reply", ConfigRecord({"head": "[" * 100_000})),
    "past: a record too many": lambda r: _with(r, "notes", ConfigRecord({"text": PLANTED})),
    "past: no metrics": lambda r: _head(r, metrics=None),
    "past: text in an error": lambda r: Error(wire.ERROR_NUMBER, PLANTED),
}


def spoil(plan: Path) -> None:
    """Put the faults of a plan in the way of this process's answers."""
    answer, pass_out, send = Bench.answer, agent.Agent._pass_out, Fleet.send

    def fault_for(task: Task) -> str:
        return str(json.loads(plan.read_text()).get(str(task.round), "")) if task.kind == "train" else ""

    def spoilt_answer(self: Bench, task: Task, run_id: int) -> Reply:
        reply, fault = answer(self, task, run_id), fault_for(task)
        if fault == "the ledger can't be written":
            self.home.ledger.rename(self.home.ledger.with_suffix(".kept"))
            self.home.ledger.mkdir()
        if fault == "dies half-way through sending":
            fleet.push_object_contents_from_iterable = lambda *_: os._exit(9)
        return BENCH.get(fault.removeprefix("past: "), lambda same: same)(reply)

    def spoilt_pass_out(self: Any, reply: Reply, task: Task, study: Any, message: Message) -> Parcel:
        fault = fault_for(task)
        if not fault.startswith("past: "):
            return pass_out(self, reply, task, study, message)
        return pack(PAST.get(fault, lambda same: same)(reply_record(reply)), message)

    def watched_send(self: Fleet, parcel: Parcel, seconds: float) -> None:
        """What the ledger's last line on disk is at the moment of sending goes to sent.jsonl in the home."""
        home = Path(sys.argv[-1])
        last = json.loads((home / "ledger.jsonl").read_bytes().splitlines()[-1])
        with (home / "sent.jsonl").open("a") as file:
            file.write(json.dumps({"size": parcel.size, "ledger": last}) + "\n")
        send(self, parcel, seconds)

    Bench.answer, agent.Agent._pass_out = spoilt_answer, spoilt_pass_out  # type: ignore[method-assign]
    Fleet.send = watched_send  # type: ignore[method-assign]


if __name__ == "__main__":
    spoil(Path(sys.argv[1]))
    sys.exit(run(sys.argv[2:]))
