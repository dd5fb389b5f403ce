from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fedai_site import allowance
from replies_to import task_of
from studies import small_study

from fedai.errors import RefusedByPolicy
from fedai.wire import Task, most_models

STUDY = small_study()


def test_the_same_task_may_come_again_and_after_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        allowance.claim(tmp_path, 7, task_of("train"), STUDY)


def test_the_same_task_is_not_answered_for_ever(tmp_path: Path) -> None:
    for _ in range(1 + allowance.MOST_TIMES_AGAIN):
        allowance.claim(tmp_path, 7, task_of("train"), STUDY)
    with pytest.raises(RefusedByPolicy, match="ASKED_TOO_OFTEN"):
        allowance.claim(tmp_path, 7, task_of("train"), STUDY)
    allowance.claim(tmp_path, 7, task_of("train_alone"), STUDY)


def test_a_round_is_trained_once_whatever_weights_come_later(tmp_path: Path) -> None:
    task = task_of("train")
    other = dataclasses.replace(task, arrays={**task.arrays, "parameters": task.arrays["parameters"] + 1})
    allowance.claim(tmp_path, 7, task, STUDY)
    with pytest.raises(RefusedByPolicy, match="another content"):
        allowance.claim(tmp_path, 7, other, STUDY)
    allowance.claim(tmp_path, 8, dataclasses.replace(other, run="small-2"), STUDY)


def test_a_run_has_one_name_and_a_name_one_run(tmp_path: Path) -> None:
    task = task_of("train_alone")
    allowance.claim(tmp_path, 7, task, STUDY)
    for run_id, name in ((7, "small-9"), (8, "small-1")):
        with pytest.raises(RefusedByPolicy, match="don't belong together"):
            allowance.claim(tmp_path, run_id, dataclasses.replace(task, run=name), STUDY)
    allowance.claim(tmp_path, 8, dataclasses.replace(task, run="small-9"), STUDY)
    allowance.claim(tmp_path, 7, task, STUDY)


def test_a_run_that_goes_on_is_the_one_that_it_began_as_if_the_study_is_the_same(tmp_path: Path) -> None:
    task = task_of("train")
    assert allowance.origin(tmp_path, 7, task) == 7
    allowance.claim(tmp_path, 7, task, STUDY)
    assert allowance.origin(tmp_path, 8, task) == 7
    assert allowance.origin(tmp_path, 8, dataclasses.replace(task, study="0" * 64)) == 8
    assert allowance.origin(tmp_path, 8, dataclasses.replace(task, run="small-2")) == 8
    (tmp_path / "asked" / "7.json").write_text("torn")
    assert allowance.origin(tmp_path, 8, task) == 8


def placing(count: int, **changes: object) -> Task:
    """Two models with so many cases in one bin of every side."""
    histograms = np.zeros((2, 1, 2, 4096), np.uint32)
    histograms[..., 9] = count
    return task_of("place", **{"arrays": {"histograms": histograms}, **changes})


def test_models_are_placed_again_only_in_a_smaller_pool(tmp_path: Path) -> None:
    allowance.claim(tmp_path, 7, placing(30), STUDY)
    with pytest.raises(RefusedByPolicy, match="another content"):
        allowance.claim(tmp_path, 7, placing(31), STUDY)
    allowance.claim(tmp_path, 7, placing(20), STUDY)
    for task in (placing(25), placing(10, models=("federated", "local:east"))):
        with pytest.raises(RefusedByPolicy, match="another content"):
            allowance.claim(tmp_path, 7, task, STUDY)
    allowance.claim(tmp_path, 7, placing(30), STUDY)  # the very same as before: a lost answer


def test_models_are_placed_no_oftener_than_the_study_has_sites(tmp_path: Path) -> None:
    for number in range(len(STUDY.sites)):
        allowance.claim(tmp_path, 7, placing(30 - number), STUDY)
    with pytest.raises(RefusedByPolicy, match="another content"):
        allowance.claim(tmp_path, 7, placing(1), STUDY)


def test_where_it_is_forgotten_what_was_placed_nothing_more_is(tmp_path: Path) -> None:
    allowance.claim(tmp_path, 7, placing(30), STUDY)
    (tmp_path / "asked" / "7-placed.npz").write_bytes(b"torn")
    with pytest.raises(RefusedByPolicy, match="another content"):
        allowance.claim(tmp_path, 7, placing(20), STUDY)


def test_only_so_many_models_are_scored_in_a_run(tmp_path: Path) -> None:
    task = task_of("score")
    for number in range(most_models(STUDY)):
        allowance.claim(tmp_path, 7, dataclasses.replace(task, model=f"model-{number}"), STUDY)
    with pytest.raises(RefusedByPolicy, match="models scored"):
        allowance.claim(tmp_path, 7, dataclasses.replace(task, model="one-more"), STUDY)
    allowance.claim(tmp_path, 7, dataclasses.replace(task, model="model-0"), STUDY)


def test_a_segmentations_models_are_linked_once_and_the_same_ones_alone(tmp_path: Path) -> None:
    """There is no pool that could get smaller, so nothing but the very same may be asked again."""
    first = task_of("place", models=("federated", "local:north"), arrays={})
    for _ in range(2):
        allowance.claim(tmp_path, 7, first, STUDY)
    with pytest.raises(RefusedByPolicy, match="before, with another content"):
        allowance.claim(tmp_path, 7, task_of("place", models=("federated", "local:east"), arrays={}), STUDY)
