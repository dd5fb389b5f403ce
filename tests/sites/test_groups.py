from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fedai_site.adding import add_data
from fedai_site.client_app import Bench
from fedai_site.cohort import Case
from fedai_site.groups import levels_in, tell_groups
from fedai_site.home import SiteHome, create_home
from fedai_site.parts import isolates
from fedai_site.permit import Permit
from fedai_site.traits import Traits
from fedai_site.withheld import remember, withhold
from homes import settings_for
from hypothesis import given, settings
from hypothesis import strategies as st
from replies_to import task_of
from studies import small_study

from fedai import wire
from fedai.demo.hospital import write_image
from fedai.errors import RefusedByPolicy
from fedai.study import Evaluation, Study
from fedai.subgroups import VARIABLES, Subgroup, read_subgroups
from fedai.weights import layout_of

CELL = 3
NAMES = [f"p{number:02}" for number in range(18)]
SEX = Evaluation(subgroups=("sex",))
ALL = Evaluation(subgroups=VARIABLES, age_bands=(40, 60))
Sets = Sequence[frozenset[str]]

PEOPLE = st.fixed_dictionaries(
    {
        name: st.tuples(
            st.integers(0, 1),
            st.sampled_from(("F", "F", "M", "M", "O", "")),
            st.sampled_from((30, 50, 70, None)),
            st.sampled_from(("GE", "GE", "SIEMENS", "")),
        )
        for name in NAMES
    }
)
RUNS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES), max_size=3),  # who is not there
        st.sampled_from((VARIABLES, ("sex",), ("age_band", "sex"))),
        st.sampled_from(((40, 60), (50,), (31, 60))),
    ),
    min_size=1,
    max_size=3,
)


def case_of(name: str, label: int = 0, sex: str = "", age: int | None = None, maker: str = "") -> Case:
    traits = Traits(sex=sex, age_years=age, manufacturer=maker)
    return Case(f"1.{name}", name, label, Path("/clean") / name, f"{name}00", word=str(label), traits=traits)


def told_in(catalogue: Path, cases: Sequence[Case], asked: Evaluation) -> tuple[list[Case], list[Sets]]:
    """What one run tells of: the test cases, and by variable the sets of patients."""
    told = withhold(catalogue, {"test": cases}, CELL)
    remember(catalogue, {"test": cases}, told, CELL)
    kept = told["test"]
    masks = iter(tell_groups(catalogue, "test", kept, asked, asked.subgroups, CELL))
    groups = [
        [frozenset(c.patient for c, told in zip(kept, next(masks), strict=True) if told) for _ in levels]
        for levels in asked.levels.values()
    ]
    return list(kept), groups


def cut_off(sets: Sets, patients: Sequence[str]) -> bool:
    """Whether some factors give a sum over 1 or 2 patients: tried out for each one and two of them."""
    table = np.array([[name in one for one in sets] for name in patients], float)
    rank = np.linalg.matrix_rank(table)
    few = [c for n in range(1, CELL) for c in combinations(range(len(patients)), n)]
    return any(np.linalg.matrix_rank(np.delete(table, c, axis=0)) < rank for c in few)


@settings(max_examples=60, deadline=None)
@given(PEOPLE, RUNS)
def test_no_sums_and_differences_of_nested_subgroups_and_runs_are_of_fewer_than_three_patients(
    people: dict[str, Any], runs: list[tuple[set[str], Any, Any]]
) -> None:
    told: list[frozenset[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for absent, variables, bands in runs:
            cases = [case_of(name, *facts) for name, facts in people.items() if name not in absent]
            asked = Evaluation(subgroups=variables, age_bands=bands)
            kept, groups = told_in(Path(folder) / "catalogue.sqlite", cases, asked)
            own = [frozenset(c.patient for c in kept), *(one for of in groups for one in of)]
            told += own
            for label in (0, 1):
                of_class = {c.patient for c in kept if c.label == label}
                having = [one & of_class for one in own]
                assert not cut_off(having, NAMES)
                assert all(not 0 < len(one) < CELL for one in having)
            for of in groups:
                assert sum(map(len, of)) == len(frozenset().union(*of)), "nobody is in two subgroups"
    assert not cut_off(told, NAMES)


@settings(max_examples=150)
@given(st.lists(st.sets(st.sampled_from(NAMES[:9])), min_size=1, max_size=6), st.integers(2, 4))
def test_what_cuts_off_a_few_is_found_and_nothing_else(sets: list[set[str]], cell: int) -> None:
    table = np.array([[name in one for one in sets] for name in NAMES[:9]], float)
    rank = np.linalg.matrix_rank(table)
    few = [c for n in range(1, cell) for c in combinations(range(9), n)]
    found = any(np.linalg.matrix_rank(np.delete(table, c, axis=0)) < rank for c in few)
    assert isolates(sets, cell) == found


def test_margins_that_name_a_crossing_cut_it_off() -> None:
    """Everybody is a woman or filmed by GE or both: women plus GE minus all are those who are both."""
    women, ge = {"a", "b", "c", "d", "e"}, {"e", "f", "g", "h", "i"}
    assert isolates([women | ge, women, ge], CELL)
    assert not isolates([women | ge | {"j", "k", "l"}, women, ge], CELL)


def people(**numbers: int) -> list[Case]:
    """Patients of each sex, every other one with a finding: F=8 and so on; U is not known."""
    return [
        case_of(f"{sex}{i:02}", i % 2, sex if sex != "U" else "", 50)
        for sex, number in numbers.items()
        for i in range(number)
    ]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.sqlite"


def sizes(catalogue: Path, cases: list[Case], asked: Evaluation = SEX) -> list[int]:
    return [len(one) for of in told_in(catalogue, cases, asked)[1] for one in of]


def test_subgroups_that_are_large_enough_are_told_of_whole(catalogue: Path) -> None:
    assert sizes(catalogue, people(F=8, M=10)) == [8, 10, 0]


def test_what_a_small_subgroup_would_be_by_difference_is_made_up_for_by_the_largest(catalogue: Path) -> None:
    female, male, other = sizes(catalogue, people(F=8, M=20, O=1))
    assert (female, other) == (8, 0)
    assert male == 20 - 2, "three without a finding are left, one of whom is the other one"


def test_where_nothing_makes_up_for_it_the_second_subgroup_is_withheld_too(catalogue: Path) -> None:
    assert sizes(catalogue, people(F=7, O=2)) == [0, 0, 0]


def test_patients_of_two_subgroups_or_of_none_known_are_in_neither(catalogue: Path) -> None:
    cases = [*people(F=8, M=10, U=8), case_of("M00x", 0, "F")]
    cases[-1] = Case("1.second", "M00", 0, Path("/c"), "00", traits=Traits(sex="F"))
    levels = levels_in(cases, SEX, "sex")
    assert {name: len(of) for name, of in levels.items()} == {"female": 8, "male": 9}
    assert sizes(catalogue, cases) == [8, 9, 0]


def test_the_same_cases_are_told_of_in_the_same_way_again(catalogue: Path) -> None:
    cases = people(F=9, M=20, U=1)
    first = sizes(catalogue, cases)
    assert sizes(catalogue, cases) == first
    assert sizes(catalogue, cases, ALL)[:3] == first


def test_who_withdraws_can_not_be_had_from_the_subgroups_of_two_runs(catalogue: Path) -> None:
    cases = people(F=20, M=24)
    before = told_in(catalogue, cases, SEX)
    kept, groups = told_in(catalogue, [c for c in cases if c.patient != "F00"], SEX)
    assert 0 < len(kept) < len(before[0])
    assert [len(one) for one in groups[0]][:2] != [0, 0], "most are still told of"
    everybody, those = (frozenset(c.patient for c in of) for of in (cases, kept))
    assert not cut_off([*before[1][0], *groups[0], everybody, those], sorted(everybody))


def test_bands_that_differ_by_a_year_do_not_give_those_of_that_age(catalogue: Path) -> None:
    cases = [case_of(f"p{i:02}", i % 2, "F", 40 if i == 7 else 30 if i < 20 else 60) for i in range(44)]
    asked = [Evaluation(subgroups=("age_band",), age_bands=(edge,)) for edge in (40, 41)]
    told = [told_in(catalogue, cases, one)[1][0] for one in asked]
    assert all(told[0])
    everybody = frozenset(case.patient for case in cases)
    assert not cut_off([everybody, *told[0], *told[1]], sorted(everybody))


def test_nothing_is_told_of_a_variable_that_the_policy_does_not_name(catalogue: Path) -> None:
    cases = people(F=10, M=10)
    masks = tell_groups(catalogue, "test", cases, ALL, ["age_band"], CELL)
    told = [sum(mask) for mask in masks]
    assert told[:3] == [0, 0, 0]
    assert told[3:6] == [0, 20, 0]
    assert sum(told[6:]) == 0


# ---------------------------------------------------------------- real files

STUDY = small_study(
    split={"validation": 0.1, "test": 0.7}, judgement={"subgroups": ["sex", "age_band"], "age_bands": [50]}
)
EVERYTHING = Permit(subgroups=VARIABLES)


def make_home(folder: Path, patients: int = 40) -> SiteHome:
    """Two images a patient, all of whom have a sex and an age; every other two have a nodule."""
    home = create_home(folder / "north", settings_for(folder / "server", "north"))
    lines = ["PatientID,label"]
    for patient in range(patients):
        for number in (2 * patient, 2 * patient + 1):
            path = folder / "export" / f"{number}.dcm"
            pixels = np.random.default_rng(number).integers(0, 1500, (16, 16), np.uint16)
            write_image(path, pixels, patient=f"P{patient}", bits=12)
            image = pydicom.dcmread(path)
            image.PatientSex = "FM"[patient % 2]
            image.PatientAge = f"0{30 + patient:02}Y"
            image.save_as(path)
        lines.append(f"P{patient},{'nodule' if patient % 4 > 1 else 'clear'}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines))
    add_data(home.folder, folder / "export", labels)
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("groups"))


def score(home: SiteHome, study: Study, allowed: Permit, run: int = 1) -> wire.Reply:
    bench = Bench(home, study, lambda: True, allowed)
    task = task_of("score", model="federated", study=study.sha256)
    reply = bench.answer(task, run)
    wire.check(reply, task, study, layout_of(bench.model.network))
    return reply


def test_a_site_tells_of_subgroups_what_adds_up_to_its_test_cases(home: SiteHome) -> None:
    reply = score(home, STUDY, EVERYTHING)
    female, male, other, younger, older = read_subgroups(reply.arrays, 5, 0.5)
    assert other.patients == 0
    assert female.patients + male.patients == younger.patients + older.patients == reply.metrics["patients"]
    whole = reply.arrays["threshold_counts"]
    for one, two in ((female, male), (younger, older)):
        assert np.array_equal((one.calls + two.calls).counts, whole)
    assert 0 <= float(female.placements.auroc()[0, 0]) <= 1


def test_a_site_whose_policy_names_no_subgroup_tells_of_none(home: SiteHome) -> None:
    reply = score(home, STUDY, Permit(), run=2)
    told = [array for name, array in reply.arrays.items() if name.startswith("subgroup_")]
    assert told
    assert not any(array.any() for array in told)


def test_a_study_that_asks_for_none_gets_the_score_that_it_always_got(home: SiteHome) -> None:
    plain = small_study(split={"validation": 0.1, "test": 0.7})
    assert plain.sha256 != STUDY.sha256
    reply = score(home, plain, EVERYTHING, run=3)
    assert not any(name.startswith("subgroup_") for name in reply.arrays)


@pytest.mark.parametrize("patients", [1, 2])
def test_the_wire_refuses_a_subgroup_of_fewer_than_three_and_one_that_leaves_so_few(
    home: SiteHome, patients: int
) -> None:
    reply = score(home, STUDY, EVERYTHING)
    bench = Bench(home, STUDY, lambda: True, EVERYTHING)
    task, layout = task_of("score", model="federated", study=STUDY.sha256), layout_of(bench.model.network)
    own = reply.arrays["subgroup_placement_patients"]
    for told in (patients, int(own[0, 0]) - patients):
        changed = own.copy()
        changed[0, 0] = told
        forged = {**reply.arrays, "subgroup_placement_patients": changed}
        with pytest.raises(RefusedByPolicy, match="by sex, or what these leave, is of fewer than 3"):
            wire.check(wire.Reply(**{**vars(reply), "arrays": forged}), task, STUDY, layout)


def test_a_subgroup_without_cases_is_all_zeros() -> None:
    none = Subgroup.of(np.zeros((0, 2)), np.zeros(0, np.int64), [], 0.5)
    assert not any(np.asarray(array).any() for array in none.to_arrays().values())
