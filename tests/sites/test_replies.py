from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from fedai_site import replies
from replies_to import reply_to, task_of

from fedai import wire


@pytest.mark.parametrize("kind", wire.REPLY_OF)
def test_a_kept_answer_is_found_as_it_was(kind: wire.TaskKind, tmp_path: Path) -> None:
    task = task_of(kind)
    reply, path = reply_to(task), replies.place(tmp_path, task, 7)
    assert replies.find(path) is None
    replies.keep(path, reply)
    found = replies.find(path)
    assert found is not None
    assert {**vars(found), "arrays": 0} == {**vars(reply), "arrays": 0}
    assert {name: array.dtype for name, array in found.arrays.items()} == {
        name: array.dtype for name, array in reply.arrays.items()
    }
    assert all(np.array_equal(found.arrays[name], reply.arrays[name]) for name in reply.arrays)
    assert [type(value) for value in found.metrics.values()] == [type(v) for v in reply.metrics.values()]


def test_another_task_another_run_or_another_array_has_another_place(tmp_path: Path) -> None:
    task = task_of("train")
    moved = {**task.arrays, "parameters": task.arrays["parameters"] + 1}
    tasks = [
        task,
        task_of("train_alone"),
        task_of("score"),
        dataclasses.replace(task, round=2),
        dataclasses.replace(task, study="0" * 64),
        dataclasses.replace(task, run="small-2"),
        dataclasses.replace(task, arrays=moved),
    ]
    places = {replies.place(tmp_path, one, number) for one in tasks for number in (7, 8)}
    assert len(places) == 2 * len(tasks)
    assert replies.place(tmp_path, task_of("train"), 7) == replies.place(tmp_path, task, 7)
    assert all(tmp_path in place.parents for place in places)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no archive", b"\x93NUMPY\x01\x00"])
def test_a_damaged_answer_is_none(content: bytes, tmp_path: Path) -> None:
    path = replies.place(tmp_path, task_of("train"), 7)
    replies.keep(path, reply_to(task_of("train")))
    path.write_bytes(content)
    assert replies.find(path) is None


def test_an_answer_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    path = replies.place(tmp_path, task_of("ready"), 7)
    replies.keep(path, reply_to(task_of("ready")))
    whole = path.read_bytes()
    for kept in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:kept])
        assert replies.find(path) is None


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, __head__=np.array([{"kind": "status"}], dtype=object), allow_pickle=True)
    assert replies.find(path) is None


def test_only_the_newest_answers_are_kept(tmp_path: Path) -> None:
    paths = []
    for number in range(replies.KEPT + 3):
        task = dataclasses.replace(task_of("train"), round=number)
        paths.append(replies.place(tmp_path, task, 7))
        replies.keep(paths[-1], reply_to(task))
        os.utime(paths[-1], (number, number))
    replies.keep(paths[-1], reply_to(task_of("train")))
    assert [path.exists() for path in paths] == [False] * 3 + [True] * replies.KEPT
    assert not list(paths[0].parent.glob("*.partial"))
