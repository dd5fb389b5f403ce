from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replies_to import LAYOUT, STUDY, reply_to, study_of, task_of
from studies import SIX, small_study

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.wire import Reply, Task, check, check_task, comparisons, form_of

KINDS = tuple(wire.REPLY_OF)
POOL = np.zeros((2, 1, 2, wire.BINS), np.uint32)
POOL[..., 5] = 3
MORE = np.zeros_like(POOL)
MORE[0, 0, 1, 7] = 1


def refusal(reply: Reply, task: Task) -> str:
    with pytest.raises(RefusedByPolicy) as caught:
        check(reply, task, STUDY, LAYOUT)
    return caught.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_was_asked_for_passes(kind: wire.TaskKind) -> None:
    study = study_of(kind)
    task = task_of(kind, study=study.sha256)
    check_task(task, study, LAYOUT)
    check(reply_to(task, study), task, study, LAYOUT)


def test_a_site_is_not_asked_to_validate_where_the_study_chooses_no_checkpoint() -> None:
    with pytest.raises(RefusedByPolicy, match="the study chooses no checkpoint"):
        check_task(task_of("validate"), STUDY, LAYOUT)


@pytest.mark.parametrize("kind", KINDS)
def test_one_thing_too_many_or_too_few_is_refused(kind: wire.TaskKind) -> None:
    task = task_of(kind)
    sound = reply_to(task)
    for part, extra in (("arrays", np.zeros(1)), ("metrics", 1.0), ("words", "1.0")):
        values = dict(getattr(sound, part))
        more = dataclasses.replace(sound, **{part: {**values, "Hong_Gildong": extra}})
        assert "1 " in refusal(more, task)
        assert "Gildong" not in refusal(more, task)
        for name in values:
            fewer = dataclasses.replace(sound, **{part: {key: v for key, v in values.items() if key != name}})
            assert f"missing: {name}" in refusal(fewer, task)


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_of_another_dtype_or_shape_is_refused(kind: wire.TaskKind) -> None:
    task = task_of(kind)
    sound = reply_to(task)
    for name, array in sound.arrays.items():
        others = [
            array.astype(np.float16 if array.dtype.kind == "f" else np.int32),
            array.astype(array.dtype.newbyteorder() if array.dtype.itemsize > 1 else np.int8),
            array[None],
            np.zeros((*array.shape[:-1], array.shape[-1] + 1), array.dtype),
            np.zeros(array.shape, "S8"),
        ]
        for other in others:
            changed = dataclasses.replace(sound, arrays={**sound.arrays, name: other})
            assert f"array {name} is " in refusal(changed, task)


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_no_numbers_or_no_counts_are_refused(kind: wire.TaskKind) -> None:
    task = task_of(kind)
    sound = reply_to(task)
    for name, array in sound.arrays.items():
        for bad in [np.nan, np.inf, -np.inf] if array.dtype.kind == "f" else [-1]:
            if array.dtype.kind == "u" or name == "counters" or not array.size:
                continue
            other = array.copy()
            other.flat[-1] = bad
            assert f"array {name} holds" in refusal(
                dataclasses.replace(sound, arrays={**sound.arrays, name: other}), task
            )


@pytest.mark.parametrize(
    "bad", [True, -1, 2**53 + 1, 10**400, 1.0, float("nan"), "7", None, [7], np.int64(7)]
)
def test_a_count_is_a_plain_integer(bad: Any) -> None:
    task = task_of("train")
    sound = reply_to(task)
    assert "metric cases" in refusal(
        dataclasses.replace(sound, metrics={**sound.metrics, "cases": bad}), task
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1, True, "0.5", None, np.float32(0.5)])
def test_a_loss_is_a_plain_finite_float(bad: Any) -> None:
    task = task_of("train")
    sound = reply_to(task)
    metrics = {**sound.metrics, "train_loss": bad}
    assert "metric train_loss" in refusal(dataclasses.replace(sound, metrics=metrics), task)


@pytest.mark.parametrize("bad", ["Hong Gildong", "", "1" * 40, "v1", "1.0\n", "1 0", "1.0/home/x"])
def test_a_word_is_a_version_number_and_nothing_else(bad: str) -> None:
    task = task_of("ready")
    sound = reply_to(task)
    told = refusal(dataclasses.replace(sound, words={**sound.words, "torch": bad}), task)
    assert told.endswith("word torch is not a version number")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "status"},
        {"task": "train_alone"},
        {"study": "0" * 64},
        {"round": 2},
        {"model": "federated"},
        {"layout": ""},
        {"layout": "0" * 64},
    ],
)
def test_an_answer_to_something_else_is_refused(change: dict[str, Any]) -> None:
    task = task_of("train")
    (name,) = change
    assert f"{name} is not the task's" in refusal(dataclasses.replace(reply_to(task), **change), task)


def test_a_reply_larger_than_the_study_allows_is_refused() -> None:
    tight = small_study(rounds={"max_update_mb": 0.001})
    task = dataclasses.replace(task_of("train"), study=tight.sha256)
    with pytest.raises(RefusedByPolicy, match="bytes are more than the study's 1,000"):
        check(reply_to(task, tight), task, tight, LAYOUT)


def test_a_reply_says_all_that_is_wrong_at_once() -> None:
    task = task_of("score")
    reply = dataclasses.replace(reply_to(task), round=1, model="", metrics={"cases": -1, "x": 1})
    told = refusal(reply, task)
    assert told.count(";") == 4


@given(
    st.dictionaries(
        st.text(max_size=20), st.integers() | st.floats() | st.text(max_size=9) | st.none(), max_size=6
    )
)
def test_no_other_set_of_metrics_passes(metrics: dict[str, Any]) -> None:
    task = task_of("place")
    reply = dataclasses.replace(reply_to(task), metrics=metrics)
    fits = set(metrics) == {"cases"} and type(metrics["cases"]) is int and 0 <= metrics["cases"] <= 2**53
    if fits:
        check(reply, task, STUDY, LAYOUT)
    else:
        refusal(reply, task)


def test_two_classes_have_one_auroc_and_six_have_six() -> None:
    assert comparisons(STUDY) == 1
    six = small_study(task={"classes": SIX})
    assert comparisons(six) == 6
    assert form_of(task_of("score"), six, LAYOUT).arrays["threshold_counts"] == ("int64", (6, 4))


def test_forms_hold_no_array_with_a_value_for_each_case() -> None:
    """Sizes follow from the study and its network alone, never from the number of cases."""
    for kind in KINDS:
        form = form_of(task_of(kind), STUDY, LAYOUT)
        assert form == form_of(task_of(kind), small_study(), LAYOUT)


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("train", {"study": "0" * 64}, "hash"),
        ("train", {"layout": "{}"}, "layout"),
        ("train", {"round": 3}, "no such round"),
        ("train", {"round": -1}, "no such round"),
        ("train", {"run": "../../etc"}, "odd name of a run"),
        ("train", {"run": ""}, "odd name of a run"),
        ("score", {"model": "../x"}, "odd name of a model"),
        ("score", {"model": ""}, "a model too many or too few"),
        ("train", {"model": "federated"}, "a model too many or too few"),
        ("place", {"models": ("a b",)}, "odd name of a model"),
        ("place", {"models": ()}, "a model too many or too few"),
        ("ready", {"arrays": {"x": np.zeros(1)}}, "array(s) too many"),
        ("place", {"models": ("a", "b", "c")}, "array histograms is"),
        ("place", {"models": ("federated", "federated")}, "names a model twice"),
        ("place", {"models": tuple(f"m{number}" for number in range(13))}, "more than 12 models"),
        ("place", {"arrays": {"histograms": POOL + MORE}}, "not of the same cases"),
        ("place", {"arrays": {"histograms": POOL * 0 + MORE}}, "not of the same cases"),
        ("train", {"kind": "delete"}, "unknown kind"),
    ],
)
def test_a_task_that_does_not_fit_the_study_is_refused(kind: Any, change: dict[str, Any], told: str) -> None:
    with pytest.raises(RefusedByPolicy) as caught:
        check_task(dataclasses.replace(task_of(kind), **change), STUDY, LAYOUT)
    assert told in caught.value.message


def test_a_task_with_weights_that_are_not_finite_is_refused() -> None:
    task = task_of("train")
    bad = np.full_like(task.arrays["parameters"], np.nan)
    with pytest.raises(RefusedByPolicy, match="holds NaN or infinity"):
        check_task(dataclasses.replace(task, arrays={**task.arrays, "parameters": bad}), STUDY, LAYOUT)


def test_with_many_classes_every_comparison_is_of_all_cases() -> None:
    study = small_study(task={"classes": SIX})
    sides = np.zeros((2, 6, 2, wire.BINS), np.uint32)
    sides[:, :, 0, 3], sides[:, :, 1, 9] = 10, 2
    facts = {"models": ("a", "b"), "study": study.sha256, "run": "small-1"}
    check_task(Task("place", arrays={"histograms": sides}, **facts), study, LAYOUT)
    sides[:, 4, 1, 9] = 3
    with pytest.raises(RefusedByPolicy, match="not of the same cases"):
        check_task(Task("place", arrays={"histograms": sides}, **facts), study, LAYOUT)


def test_the_same_work_has_the_same_key_and_other_work_another() -> None:
    tasks = [task_of(kind) for kind in KINDS] + [dataclasses.replace(task_of("train"), round=2)]
    assert len({task.key for task in tasks}) == len(tasks)
    assert all(task.key == dataclasses.replace(task).key for task in tasks)
    assert not any(set(":/\\.") & set(task.key) for task in tasks)
