"""Which patients a site tells of as subgroups of its test patients, where study and policy name the variable.

A subgroup may be larger than is told: the few of one that is too small would be what the others leave of all
test patients, so some of a larger one are left out with them. What `withheld` holds for the sets of a split
is held for the subgroups of each variable, in one run and over runs, and within a run for the patients of
each class too. Then all sets ever told of, of all variables, are looked at together: where a sum or
difference of them would be one over too few patients, the variable's smallest subgroup is withheld too, and
so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedai.study import Evaluation
from fedai.subgroups import Subgroup, Variable, level_of, subgroup_arrays
from fedai.wire import Arrays
from fedai_site.parts import isolates, tellable
from fedai_site.withheld import by_name, digest_of, kinds_of, names_of, note, opened, recall

if TYPE_CHECKING:
    from fedai_site.client_app import Bench
    from fedai_site.cohort import Case

Floats = npt.NDArray[np.float64]
Told = dict[Variable, dict[str, set[str]]]  # variable -> level -> patients


def score(bench: Bench, scores: Floats) -> Arrays:
    """What is told of subgroups of the test cases, which have `scores` [N, C]; nothing where the study asks
    for none.
    """
    asked, cases, allowed = bench.study.judgement, bench.cohort.splits["test"], bench.permit
    if not asked.subgroups:
        return {}
    found = tell_groups(bench.home.catalogue, "test", cases, asked, allowed.subgroups, allowed.minimum_cell)
    labels, patients = bench.labels("test"), np.array(bench.patients("test"))
    cut = [(scores[of], labels[of], patients[of].tolist()) for of in map(np.array, found)]
    return subgroup_arrays([Subgroup.of(*part, asked.threshold) for part in cut])


def tell_groups(
    catalogue: Path, split: str, cases: Sequence[Case], asked: Evaluation, may: Iterable[str], cell: int
) -> list[list[bool]]:
    """For each subgroup in the order of `asked.levels`, which of `cases` it tells of; all of a split that may
    be told of. `may`: the variables that the policy allows. The sets are noted before anything leaves, and
    the same cases give the same ones again.
    """
    own, names = by_name(cases), names_of(cases)
    wanted: Told = {v: levels_in(cases, asked, v) for v in asked.levels if v in may}
    keys = _keys(wanted, own, cell)
    with opened(catalogue, write=True) as database:
        memory = recall(database)
        before = {one: memory.answer(f"{split}/{one[0]}", key) for one, key in keys.items()}
        if any(patients is None for patients in before.values()):
            sets, classes = [*memory.told(split), set(own)], {name: kinds_of(of) for name, of in own.items()}
            told = choose(wanted, classes, sets, memory.groups(split), cell)
            before = {(variable, level): told.get(variable, {}).get(level, set()) for variable, level in keys}
            note(database, [(f"{split}/{one[0]}", keys[one], of or set()) for one, of in before.items()])
    all_levels = [(variable, level) for variable, levels in asked.levels.items() for level in levels]
    return [[names[case.patient] in (before.get(one) or ()) for case in cases] for one in all_levels]


def _keys(wanted: Told, patients: Iterable[str], cell: int) -> dict[tuple[Variable, str], str]:
    """Variable and level -> what tells that the very same was asked of the very same patients."""
    levels = [(v, name, sorted(of)) for v, found in wanted.items() for name, of in sorted(found.items())]
    asked = digest_of([digest_of(set(patients)), repr(levels), str(cell)])
    return {(v, level): f"{asked}/{level}" for v, found in wanted.items() for level in found}


def levels_in(cases: Sequence[Case], asked: Evaluation, variable: Variable) -> dict[str, set[str]]:
    """Level -> the patients all of whose cases are of it."""
    names, found = names_of(cases), dict[str, set[str]]()
    for case in cases:
        traits = case.traits
        facts = {"sex": traits.sex, "age_years": traits.age_years, "manufacturer": traits.manufacturer}
        level = level_of(variable, asked.age_bands, **facts)  # type: ignore[arg-type]
        found.setdefault(names[case.patient], set()).add(level)
    levels: dict[str, set[str]] = {}
    for patient, of in found.items():
        if len(of) == 1 and "" not in of:
            levels.setdefault(of.pop(), set()).add(patient)
    return levels


def choose(
    wanted: Told,
    classes: Mapping[str, Set[int]],
    before: Sequence[Set[str]],
    groups: Mapping[str, Sequence[Set[str]]],
    cell: int,
) -> Told:
    """What may be told of `wanted`. `classes`: of all patients that the answer is about, one of the sets
    `before`; `groups`: subgroups told before, by variable.
    """
    told: Told = {}
    for variable, levels in wanted.items():
        rest = dict(sorted(levels.items(), key=lambda item: (len(item[1]), item[0])))
        while rest:
            found = _of_variable(rest, classes, before, groups.get(variable, ()), cell)
            if _is_safe({**told, variable: found}, classes, before, groups, cell):
                told[variable] = found
                break
            rest.pop(next(iter(rest)))
    return told


def _of_variable(
    levels: Mapping[str, Set[str]],
    classes: Mapping[str, Set[int]],
    before: Sequence[Set[str]],
    groups: Sequence[Set[str]],
    cell: int,
) -> dict[str, set[str]]:
    """The largest level comes last: it makes up for what the smaller ones leave."""
    found: dict[str, set[str]] = {}
    for level, patients in levels.items():
        of = {patient: classes[patient] for patient in patients}
        kept = tellable(of, [*before, *found.values()], cell, [groups], classes)
        found |= {level: kept} if kept else {}
    return found


def _is_safe(
    told: Told,
    classes: Mapping[str, Set[int]],
    before: Sequence[Set[str]],
    groups: Mapping[str, Sequence[Set[str]]],
    cell: int,
) -> bool:
    own = [patients for levels in told.values() for patients in levels.values()]
    every = [*before, *(one for family in groups.values() for one in family), *own]
    if isolates(every, cell):
        return False
    of_class = [{p for p, of in classes.items() if c in of} for c in set().union(*classes.values())]
    return not any(isolates([having, *(one & having for one in own)], cell) for having in of_class)
