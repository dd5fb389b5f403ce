from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.client_app import Bench
from fedai_site.cohort import Case, select
from fedai_site.parts import tellable
from fedai_site.withheld import names_of, remember, withhold
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
    kept = withhold(catalogue, {"test": cases}, CELL)
    remember(catalogue, {"test": cases}, kept, CELL)
    return [case.patient for case in kept["test"]]


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


def test_one_of_whom_nothing_is_told_is_never_the_only_one_and_test_patients_stay(tmp_path: Path) -> None:
    """How many images are used is told: beside one that isn't told of, training patients aren't counted."""
    catalogue, told = tmp_path / "catalogue.sqlite", []
    for test in ([], ["q1"]):
        wanted = {"train": cases_of(NAMES[5:]), "test": cases_of([*NAMES[:5], *test])}
        kept = withhold(catalogue, wanted, CELL)
        remember(catalogue, wanted, kept, CELL)
        told.append({split: {case.patient for case in cases} for split, cases in kept.items()})
    assert told[0]["train"] == set(NAMES[5:])
    assert told[0]["test"] == told[1]["test"] == set(NAMES[:5])
    assert told[1]["train"] < told[0]["train"]
    assert len(told[0]["train"] - told[1]["train"]) >= CELL


def test_a_study_that_numbers_the_classes_otherwise_is_of_the_same_patients(tmp_path: Path) -> None:
    """Else one who withdrew in between would be the difference of the two answers."""
    home = make_home(tmp_path, patients=28)
    turned = STUDY.model_copy(
        update={"task": STUDY.task.model_copy(update={"classes": STUDY.task.classes[::-1]})}
    )
    first, second = (select(home.folder, study).splits["test"] for study in (STUDY, turned))
    assert [case.label for case in first] != [case.label for case in second]
    assert names_of(first) == names_of(second)
    kept = withhold(home.catalogue, {"test": first}, CELL)
    remember(home.catalogue, {"test": first}, kept, CELL)
    fewer = [case for case in second if case.patient != second[0].patient]
    again = withhold(home.catalogue, {"test": fewer}, CELL)
    assert len({case.patient for case in kept["test"]} - {case.patient for case in again["test"]}) >= CELL


def test_a_patient_whose_label_changed_counts_as_another_one(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    mixed = {name: number % 2 for number, name in enumerate(NAMES)}
    assert told_of(catalogue, cases_of(NAMES, labels=mixed)) == NAMES
    told = told_of(catalogue, cases_of(NAMES, labels={**mixed, "p00": 1}))
    assert "p00" not in told
    assert len(told) == len(NAMES) - CELL


Told = list[dict[str, list[Case]]]  # of each answer, by split
IMAGES = [(name, number) for name in NAMES[:11] for number in (1, 2)]
ASKED = st.fixed_dictionaries(
    {
        "absent": st.sets(st.sampled_from(NAMES[:11]), max_size=2),
        "one image of": st.sets(st.sampled_from(NAMES[:11])),
        "which": st.sampled_from((0, 1, 2)),  # the first, the second or both of each patient's images
        "cleaned anew": st.booleans(),
        "relabelled": st.sets(st.sampled_from(NAMES[:11]), max_size=4),
        "seed": st.sampled_from((0, 3, 5)),
    }
)
VIEWS: dict[str, tuple[Callable[[Case], Any], Callable[[Case], bool]]] = {
    "image": (lambda case: (case.id,), lambda case: True),
    "label": (lambda case: (case.id, case.word), lambda case: True),
    "file": (lambda case: (case.id, case.sha256), lambda case: True),
    "file and label": (lambda case: (case.id, case.sha256, case.word), lambda case: True),
    "of a class": (lambda case: (case.id,), lambda case: case.label == 1),
    "of a kind": (lambda case: (case.id,), lambda case: case.id.endswith(".2")),
}


def image(name: str, number: int, *, label: int = 0, again: bool = False) -> Case:
    return Case(
        f"1.2.{name}.{number}",
        name,
        label,
        Path("/clean") / name,
        f"{name}{number}{again}",
        word=f"is {label}",
    )


def asked_of(asked: dict[str, Any]) -> dict[str, list[Case]]:
    """The cases of a study by split; another seed has other test patients."""
    splits: dict[str, list[Case]] = {"train": [], "test": []}
    for name, number in IMAGES:
        taken = asked["which"] == 0 or number == asked["which"] or name in asked["one image of"]
        if taken and name not in asked["absent"]:
            test = (NAMES.index(name) + asked["seed"]) % 11 < 6
            case = image(name, number, label=name in asked["relabelled"], again=asked["cleaned anew"])
            splits["test" if test else "train"].append(case)
    return splits


def cuts_off(told: list[list[Case]], view: str) -> bool:
    """Whether some factors give a sum over what 1 or 2 patients show: tried out for each one and two. What a
    single answer holds of a class or a kind may be of few patients, and is no difference.
    """
    seen_as, is_seen = VIEWS[view]
    seen = [{seen_as(case) for case in cases if is_seen(case)} for cases in told]
    seen = [one for one in seen if len({row[0].rpartition(".")[0] for row in one}) >= CELL]
    rows = sorted(set().union(*seen))
    table = np.array([[row in one for one in seen] for row in rows], float).reshape(len(rows), len(seen))
    owners = np.array([row[0].rpartition(".")[0] for row in rows])
    rank = np.linalg.matrix_rank(table) if rows else 0
    few = [one for n in range(1, CELL) for one in combinations(sorted(set(owners)), n)]
    return any(np.linalg.matrix_rank(table[~np.isin(owners, one)]) < rank for one in few)


@settings(max_examples=25, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=5))
def test_no_answers_about_images_of_patients_differ_by_fewer_than_three_patients(
    asked: list[dict[str, Any]],
) -> None:
    """Of one image, the other or both, cleaned or labelled anew, under other split seeds, with some away."""
    told: Told = []
    with tempfile.TemporaryDirectory() as folder:
        for one in asked:
            wanted = asked_of(one)
            kept = withhold(Path(folder) / "catalogue.sqlite", wanted, CELL)
            remember(Path(folder) / "catalogue.sqlite", wanted, kept, CELL)
            assert withhold(Path(folder) / "catalogue.sqlite", wanted, CELL) == kept
            assert all(set(kept[split]) <= set(wanted[split]) for split in wanted)
            told.append({split: list(cases) for split, cases in kept.items()})
            left = {c.patient for split, of in wanted.items() for c in of if c not in kept[split]}
            assert not 0 < len(left) < CELL
    for view in VIEWS:
        for split in ("train", "test"):
            assert not cuts_off([one[split] for one in told], view), view
        assert not cuts_off([one["train"] + one["test"] for one in told], view), view


def told_images(catalogue: Path, cases: list[Case]) -> set[tuple[str, str]]:
    kept = withhold(catalogue, {"test": cases}, CELL)
    remember(catalogue, {"test": cases}, kept, CELL)
    return {(case.patient, case.id[-1]) for case in kept["test"]}


def test_both_images_after_one_and_the_other_would_be_a_sum_so_it_is_one_of_them(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    single = [image(name, 1) for name in NAMES[:6]]
    first = [image(name, 1) for name in NAMES[6:]]
    second = [image(name, 2) for name in NAMES[6:]]
    assert len(told_images(catalogue, single + first)) == len(NAMES)
    assert told_images(catalogue, second) == {(name, "2") for name in NAMES[6:]}
    both = told_images(catalogue, single + first + second)
    assert len(both) == len({name for name, _ in both}) == len(NAMES)
    left = told_images(catalogue, [c for c in single + first + second if c.patient != NAMES[6]])
    assert len({name for name, _ in both} - {name for name, _ in left}) >= CELL


def test_patients_who_got_a_further_image_are_told_of_by_the_one_of_before(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    first, second = [image(name, 1) for name in NAMES], [image(name, 2) for name in NAMES[:5]]
    assert len(told_images(catalogue, first)) == len(NAMES)
    assert told_images(catalogue, first + second) == {(name, "1") for name in NAMES}
    assert told_images(catalogue, second) == {(name, "2") for name in NAMES[:5]}


def test_who_left_while_all_files_were_cleaned_anew_takes_others_out(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    before = told_images(catalogue, [image(name, 1) for name in NAMES])
    after = told_images(catalogue, [image(name, 1, again=True) for name in NAMES[1:]])
    assert len(before - after) >= CELL


def test_of_labels_that_were_all_spelled_anew_nothing_is_told(tmp_path: Path) -> None:
    """One of them may have been corrected with it: to whoever counts classes, that patient alone changed."""
    catalogue = tmp_path / "catalogue.sqlite"
    told_images(catalogue, [image(name, 1) for name in NAMES])
    spelled = [replace(image(name, 1), word="IS 0") for name in NAMES]
    spelled[3] = replace(image(NAMES[3], 1, label=1), word="IS 1")
    assert told_images(catalogue, spelled) == set()


def test_one_who_comes_with_images_that_the_others_had_already_waits(tmp_path: Path) -> None:
    """The others' further images are of the other class, so that one alone would be new in its class."""
    catalogue = tmp_path / "catalogue.sqlite"
    first = [image(name, 1, label=1) for name in NAMES]
    told_images(catalogue, first[1:])
    further = [image(name, 2) for name in NAMES]
    told = told_images(catalogue, first + further)
    assert {name for name, _ in told} <= set(NAMES[1:])
    assert {number for _, number in told} == {"1"}


def test_who_left_before_a_study_with_another_split_seed_takes_others_out(tmp_path: Path) -> None:
    catalogue, told = tmp_path / "catalogue.sqlite", []
    for names, cut in ((NAMES, 5), (NAMES[1:], 8)):
        wanted = {"train": cases_of(names[cut:]), "test": cases_of(names[:cut])}
        kept = withhold(catalogue, wanted, CELL)
        remember(catalogue, wanted, kept, CELL)
        told.append({case.patient for cases in kept.values() for case in cases})
    assert len(told[0] - told[1]) >= CELL


def test_a_patient_of_whom_only_the_name_was_noted_is_told_of_under_that_name_alone(tmp_path: Path) -> None:
    """As homes did that told of patients before their cases were noted."""
    catalogue = tmp_path / "catalogue.sqlite"
    first = [image(name, 1) for name in NAMES]
    told_images(catalogue, first)
    with closing(sqlite3.connect(catalogue)) as database, database:
        database.execute("DELETE FROM told_cases")
    assert told_images(catalogue, first + [image(name, 2) for name in NAMES[:5]]) == {
        (name, "1") for name in NAMES[5:]
    }
    assert len(told_images(catalogue, first)) == len(NAMES)


def test_what_would_cut_off_a_small_group_all_the_same_is_refused(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.sqlite"
    told_of(catalogue, cases_of(NAMES))
    with pytest.raises(RefusedByPolicy, match="fewer than 3 patients"):
        remember(catalogue, {"test": cases_of(NAMES)}, {"test": cases_of(NAMES[1:])}, CELL)


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
