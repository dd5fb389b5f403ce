from __future__ import annotations

from itertools import combinations, pairwise, product
from pathlib import Path

import numpy as np
import pytest
from fedai_site.client_app import Bench
from fedai_site.cohort import Case, select
from fedai_site.withheld import names_of, remember, tellable, withhold
from homes import add_patients, make_home
from hypothesis import given, settings
from hypothesis import strategies as st
from replies_to import STUDY, task_of

from fedai.errors import RefusedByPolicy
from fedai.metrics import ScoreHistogram

CELL = 3
NAMES = [f"p{number:02}" for number in range(14)]
SETS = st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=6)


def tell_all(wanted: list[set[str]]) -> list[set[str]]:
    told: list[set[str]] = []
    for one in wanted:
        told.append(tellable({name: {0} for name in one}, told, CELL))
    return told


def parts_of(told: list[set[str]]) -> list[set[str]]:
    """What the sets cut the patients ever told of into."""
    parts: dict[tuple[bool, ...], set[str]] = {}
    for name in set().union(*told):
        parts.setdefault(tuple(name in one for one in told), set()).add(name)
    return list(parts.values())


@given(SETS)
def test_no_sets_cut_off_fewer_patients_than_the_minimum_cell(wanted: list[set[str]]) -> None:
    told = tell_all(wanted)
    assert all(one <= asked for one, asked in zip(told, wanted, strict=True))
    assert all(len(part) >= CELL for part in parts_of(told))


@settings(max_examples=60)
@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=8), min_size=2, max_size=4))
def test_no_sum_or_difference_of_answers_is_one_over_fewer_patients(wanted: list[set[str]]) -> None:
    told = tell_all(wanted)
    for factors in product((-2, -1, 0, 1, 2), repeat=len(told)):
        left = {n for n in NAMES if sum(f * (n in one) for f, one in zip(factors, told, strict=True))}
        assert len(left) == 0 or len(left) >= CELL


@given(SETS)
def test_the_same_set_is_told_again_and_whole_ones_stay_whole(wanted: list[set[str]]) -> None:
    told = tell_all(wanted)
    for one in told:
        assert tellable({name: {0} for name in one}, told, CELL) == one
    large = set(NAMES)
    assert tellable({name: {0} for name in large}, [], CELL) == large


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.integers(0, 3), min_size=1), max_size=14), SETS)
def test_a_class_that_too_few_have_is_not_told_of(
    classes: dict[str, set[int]], wanted: list[set[str]]
) -> None:
    kept = tellable(classes, tell_all(wanted), CELL)
    for label in range(4):
        having = sum(label in classes[name] for name in kept)
        assert having == 0 or having >= CELL


def cases_of(names: list[str], *, labels: dict[str, int] | None = None) -> list[Case]:
    return [
        Case(f"1.2.{name}", name, number, Path("/clean") / name, f"{name}00", word=f"class {number}")
        for name in names
        for number in [(labels or {}).get(name, 0)]
    ]


def told_of(catalogue: Path, cases: list[Case]) -> list[str]:
    kept = withhold(catalogue, "test", cases, CELL)
    remember(catalogue, "test", cases, kept, CELL)
    return [case.patient for case in kept]


def test_who_withdraws_takes_others_out_and_all_stay_out(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    assert told_of(catalogue, cases_of(NAMES)) == NAMES
    fewer = [name for name in NAMES if name != "p07"]
    told = told_of(catalogue, cases_of(fewer))
    assert len(told) == len(NAMES) - CELL
    assert told_of(catalogue, cases_of(fewer)) == told
    assert told_of(catalogue, cases_of(NAMES)) == NAMES


def test_new_patients_wait_until_there_are_enough_of_them(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    assert told_of(catalogue, cases_of(NAMES)) == NAMES
    assert told_of(catalogue, cases_of([*NAMES, "q1"])) == NAMES
    assert told_of(catalogue, cases_of([*NAMES, "q1", "q2"])) == NAMES
    assert told_of(catalogue, cases_of([*NAMES, "q1", "q2", "q3"])) == [*NAMES, "q1", "q2", "q3"]


def test_a_study_that_numbers_the_classes_otherwise_is_of_the_same_patients(tmp_path: Path) -> None:
    """Else one who withdrew in between would be the difference of the two answers."""
    home = make_home(tmp_path, patients=28)
    turned = STUDY.model_copy(
        update={"task": STUDY.task.model_copy(update={"classes": STUDY.task.classes[::-1]})}
    )
    first, second = (select(home.folder, study).splits["test"] for study in (STUDY, turned))
    assert [case.label for case in first] != [case.label for case in second]
    assert names_of(first) == names_of(second)
    kept = withhold(home.catalogue, "test", first, CELL)
    remember(home.catalogue, "test", first, kept, CELL)
    fewer = [case for case in second if case.patient != second[0].patient]
    again = withhold(home.catalogue, "test", fewer, CELL)
    assert len({case.patient for case in kept} - {case.patient for case in again}) >= CELL


def test_a_patient_whose_label_changed_counts_as_another_one(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    mixed = {name: number % 2 for number, name in enumerate(NAMES)}
    assert told_of(catalogue, cases_of(NAMES, labels=mixed)) == NAMES
    told = told_of(catalogue, cases_of(NAMES, labels={**mixed, "p00": 1}))
    assert "p00" not in told
    assert len(told) == len(NAMES) - CELL


def test_what_would_cut_off_a_small_group_all_the_same_is_refused(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    told_of(catalogue, cases_of(NAMES))
    with pytest.raises(RefusedByPolicy, match="fewer than 3 patients"):
        remember(catalogue, "test", cases_of(NAMES), cases_of(NAMES[1:]), CELL)
    remember(catalogue, "validation", cases_of(NAMES), cases_of(NAMES[1:]), CELL)  # another split's sets


def test_of_runs_on_nested_test_sets_the_difference_is_of_three_patients_or_of_none(tmp_path: Path) -> None:
    """Real files and answers: patients come one by one, and each time the models are scored again."""
    home = make_home(tmp_path, patients=28)
    told, there = [], []
    for run in range(4):
        bench = Bench(home, STUDY, lambda: True)
        answer = bench.answer(task_of("score", model="federated"), run)
        told.append((answer.metrics["patients"], ScoreHistogram.from_arrays(answer.arrays).counts))
        there.append(len({case.patient for case in select(home.folder, STUDY).splits["test"]}))
        add_patients(home, tmp_path / f"more-{run}", range(60 + 4 * run, 64 + 4 * run))
    assert len(set(there)) > 2, "the test set grew patient by patient"
    assert any(0 < b - a < CELL for a, b in pairwise(there))
    for (patients, counts), (others, more) in combinations(told, 2):
        assert others - patients == 0 or others - patients >= CELL
        assert others != patients or np.array_equal(counts, more)
