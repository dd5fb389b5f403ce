"""Subgroups of a site's test patients: by what they are told apart, and what is told of each and each model.

Of a subgroup a site tells counts and sums over its patients, and no histogram: bins of single cases, matched
between sex, age and maker, would put the rows of a table together again. Its AUROC is that of the pairs
within the site, so placements are against the subgroup's own cases there.

A patient is in one subgroup of a variable: the one that all of the patient's test images are of. Others, and
those of whom it isn't known, are in none. A subgroup that may not be told of is all zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.cohort_rules import Maker
from fedai.errors import FederationError
from fedai.metrics import Arrays, ScoreHistogram, ThresholdCounts
from fedai.placements import PlacementSums

Variable = Literal["sex", "age_band", "manufacturer"]
VARIABLES: tuple[Variable, ...] = get_args(Variable)
AGE_BANDS = (40, 60, 80)
SEXES = {"F": "female", "M": "male", "O": "other"}
OTHER = "other"  # a maker that isn't on the list, or none said
ArrayForms = dict[str, tuple[str, tuple[int, ...]]]
START = "subgroup_"


def levels_of(variable: Variable, age_bands: Sequence[int]) -> tuple[str, ...]:
    """The closed list of a variable's subgroups."""
    if variable == "sex":
        return tuple(SEXES.values())
    if variable == "manufacturer":
        return (*get_args(Maker), OTHER)
    middle = (f"{low} to {high - 1}" for low, high in pairwise(age_bands))
    return (f"under {age_bands[0]}", *middle, f"{age_bands[-1]} and older")


def level_of(
    variable: Variable, age_bands: Sequence[int], *, sex: str, age_years: int | None, manufacturer: str
) -> str:
    """The subgroup of one image; '' where it isn't known."""
    if variable == "sex":
        return SEXES.get(sex, "")
    if variable == "manufacturer":
        return manufacturer or OTHER
    if age_years is None:
        return ""
    return levels_of("age_band", age_bands)[sum(age_years >= edge for edge in age_bands)]


@dataclass(frozen=True, eq=False)
class Subgroup:
    """One model's calls at the threshold, and placements against the subgroup's own histogram at the site."""

    calls: ThresholdCounts
    placements: PlacementSums

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike, patients: Sequence[str], threshold: float) -> Subgroup:
        """From one model's softmax scores float [N, C], labels int [N], a patient name per case. N may be
        0."""
        calls = ThresholdCounts.of(scores, labels, patients, threshold)
        histogram = ScoreHistogram.of(scores, labels)
        return cls(calls, PlacementSums.of([scores], [histogram], labels, patients))

    @property
    def patients(self) -> int:
        return self.placements.patients

    @property
    def cases(self) -> int:
        return int(self.placements.cases[:, 0].sum())

    def to_arrays(self) -> Arrays:
        """As `subgroup_forms` says, for one subgroup."""
        arrays = {**self.calls.to_arrays(), **self.placements.to_arrays()}
        del arrays["threshold"]
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], threshold: float) -> Subgroup:
        """Raises FederationError for arrays that are missing, misshapen or contradictory."""
        calls = ThresholdCounts.from_arrays({**arrays, "threshold": np.array([threshold])})
        placements = PlacementSums.from_arrays(arrays)
        counts = calls.counts
        parts = np.stack([counts[:, 1:3].sum(axis=1), counts[:, [0, 3]].sum(axis=1)])
        members = calls.patients.T
        if not np.array_equal(parts, placements.cases) or not np.array_equal(members, placements.members):
            raise FederationError("the parts of a subgroup differ in their numbers of cases or patients")
        return cls(calls, placements)


def subgroup_arrays(told: Sequence[Subgroup]) -> Arrays:
    """All subgroups of all variables, in the order of `Evaluation.levels`, as one array of each name."""
    each = [one.to_arrays() for one in told]
    return {START + name: np.stack([arrays[name] for arrays in each]) for name in each[0]} if each else {}


def read_subgroups(arrays: Mapping[str, NDArray[Any]], number: int, threshold: float) -> list[Subgroup]:
    """The reverse, for `number` subgroups. Raises FederationError."""
    stacked = {name.removeprefix(START): a for name, a in arrays.items() if name.startswith(START)}
    return [
        Subgroup.from_arrays({name: array[i] for name, array in stacked.items()}, threshold)
        for i in range(number)
    ]


def subgroup_forms(levels: int, k: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `subgroup_arrays`; none for no levels."""
    forms: ArrayForms = {
        "threshold_counts": ("int64", (k, 4)),
        "threshold_squares": ("int64", (k, 2, 3)),
        "threshold_patients": ("int64", (k, 2)),
        "placement_products": ("float64", (2 * k, 2 * k)),
        "placement_sums": ("float64", (2, k)),
        "placement_cases": ("int64", (2, k)),
        "placement_members": ("int64", (2, k)),
        "placement_patients": ("int64", (1,)),
    }
    return {START + name: (dtype, (levels, *shape)) for name, (dtype, shape) in forms.items() if levels}


def small_subgroups(
    arrays: Mapping[str, NDArray[Any]], levels: Mapping[Variable, Sequence[str]], patients: int, cell: int
) -> Iterator[str]:
    """What shows by itself that too small a group is told of: one, or the rest that a variable's leave, in
    all or of a class or its rest. `arrays`: of a score of `patients` patients that has the right form.
    """
    start = 0
    for variable, names in levels.items():
        here = slice(start, start + len(names))
        told = arrays[START + "placement_patients"][here, 0]
        members = arrays[START + "threshold_patients"][here].reshape(len(names), -1)
        left = [patients - told.sum(), *(arrays["threshold_patients"].ravel() - members.sum(axis=0))]
        if any(0 < n < cell for n in (*told, *members.ravel())) or any(n < 0 or 0 < n < cell for n in left):
            yield f"a subgroup by {variable}, or what these leave, is of fewer than {cell} patients"
        start += len(names)
