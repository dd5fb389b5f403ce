"""What a site says of one model's outlines of its test cases: sums, counts and sketches that add up.

As in `fedai.metrics`, `+` is associative and commutative, and merging sites gives the value of their pooled
cases; patients are disjoint between sites. Axes: S structures, V measures (`outlines.MEASURES`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.errors import FederationError
from fedai.metrics import (
    Arrays,
    ClusteredMean,
    Floats,
    Integers,
    patient_numbers,
    ratio,
    received,
    sum_by_patient,
)
from fedai.outlines import FOUND, MEASURES
from fedai.replicates import REPLICATES, Replicates, replicate
from fedai.signed_ranks import BINS, count_differences

ArrayForms = dict[str, tuple[str, tuple[int, ...]]]
SKETCH = 200
DICE = MEASURES.index("dice")
LOWEST = np.array([0.0, 0.0, 0.0, -1000.0])
HIGHEST = np.array([1.0, 1.0, 100.0, 1000.0])
OPEN = np.array([False, False, True, True])  # values may lie beyond: they are in the outermost bins
WIDTH = (HIGHEST - LOWEST) / SKETCH
"""Of a bin of the sketches: 0.005, 0.005, 0.5 mm, 10 mm². A quantile is right to half of it."""


@dataclass(frozen=True, eq=False)
class OutlineScore:
    """`found`: int64 [S, FOUND], cases by who outlines the structure. Over cases where a measure is defined:
    `sums` float64 [S, V], `cases` and `patients` int64 [S, V], `squares` float64 [S, V, 3] as of
    `ClusteredMean`, `sketch` int64 [S, V, SKETCH], cases by bin of their value.
    """

    found: Integers
    sums: Floats
    cases: Integers
    squares: Floats
    patients: Integers
    sketch: Integers

    @classmethod
    def of(cls, values: Floats, found: Integers, patients: Sequence[str], least: int = 1) -> OutlineScore:
        """From values [N, S, V] and `found` [N, S] as `outlines.measure` gives, one patient name per case.

        Of a measure that is defined for fewer than `least` patients nothing is told, as if there were none.
        """
        numbers, count = patient_numbers(patients, len(values))
        is_defined = np.isfinite(values)
        known = np.where(is_defined, values, 0.0)
        x, n = (sum_by_patient(rows, numbers, count) for rows in (known, is_defined.astype(np.int64)))
        members = (n > 0).sum(axis=0)
        told = members >= least
        squares = np.stack([(x * x).sum(axis=0), (x * n).sum(axis=0), (n * n).sum(axis=0)], axis=2)
        kinds = np.eye(len(FOUND), dtype=np.int64)[found]
        return cls(
            kinds.sum(axis=0),
            np.where(told, x.sum(axis=0), 0.0),
            np.where(told, n.sum(axis=0), 0).astype(np.int64),
            np.where(told[..., None], squares, 0.0).astype(np.float64),
            np.where(told, members, 0).astype(np.int64),
            _sketch(values, is_defined & told),
        )

    def __add__(self, other: OutlineScore) -> OutlineScore:
        return OutlineScore(
            self.found + other.found,
            self.sums + other.sums,
            self.cases + other.cases,
            self.squares + other.squares,
            self.patients + other.patients,
            self.sketch + other.sketch,
        )

    @property
    def means(self) -> Floats:
        """float64 [S, V], NaN where there is no case."""
        return ratio(self.sums, self.cases)

    def mean(self, structure: int, name: str) -> ClusteredMean:
        """Of a structure's measure, by name."""
        at = structure, MEASURES.index(name)
        return ClusteredMean(
            float(self.sums[at]), int(self.cases[at]), self.squares[at], int(self.patients[at])
        )

    def quantile(self, structure: int, name: str, share: float) -> float | None:
        """Of a measure over cases, to half a bin's width; None without cases, infinite beyond the sketch's
        ends.

        Where the share falls between two cases, as the median of an even number does, the mean of both
        (Hyndman and Fan, 1996, definition 2); None where one is beyond either end.
        """
        v = MEASURES.index(name)
        counts = self.sketch[structure, v]
        if not counts.sum():
            return None
        rank = round(share * int(counts.sum()), 9)  # 0.95 * 20 is 19 and a little in floats
        ranks = [max(1, math.ceil(rank)), min(int(counts.sum()), math.floor(rank) + 1)]
        places = np.searchsorted(np.cumsum(counts), ranks).tolist()
        ends = [_end(v, place) for place in places]
        if set(ends) == {-1, 1}:
            return None
        return math.inf * sum(ends) if any(ends) else float(LOWEST[v] + (sum(places) / 2 + 0.5) * WIDTH[v])

    def to_arrays(self) -> Arrays:
        """As `outline_forms` says."""
        return {
            "outline_found": self.found,
            "outline_sums": self.sums,
            "outline_cases": self.cases,
            "outline_squares": self.squares,
            "outline_patients": self.patients,
            "outline_sketch": self.sketch.astype(np.uint32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> OutlineScore:
        """Raises FederationError for arrays that are missing, misshapen, negative or contradictory."""
        found = received(arrays, "outline_found", (-1, len(FOUND)), np.int64)
        shape = (len(found), len(MEASURES))
        sums = received(arrays, "outline_sums", shape, np.float64)
        cases = received(arrays, "outline_cases", shape, np.int64)
        squares = received(arrays, "outline_squares", (*shape, 3), np.float64)
        patients = received(arrays, "outline_patients", shape, np.int64)
        sketch = received(arrays, "outline_sketch", (*shape, SKETCH), np.int64)
        bounded = sums[:, ~OPEN]
        alike = [
            len(set(found.sum(axis=1).tolist())) <= 1,
            bool((cases <= found[:, 1:].sum(axis=1)[:, None]).all()),
            bool((patients <= cases).all()),
            np.array_equal(sketch.sum(axis=2), cases),
            bool(((bounded >= 0) & (bounded <= cases[:, ~OPEN])).all()),
            bool((squares[..., [0, 2]] >= 0).all()),
        ]
        if not all(alike):
            raise FederationError("the parts of a score of outlines contradict each other")
        return cls(found, sums, cases, squares, patients, sketch)


def _end(v: int, place: int) -> int:
    """-1 or 1 for the outermost bins of a measure whose values may lie beyond them, else 0."""
    if not OPEN[v]:
        return 0
    return int(place == SKETCH - 1) - int(place == 0 and LOWEST[v] < 0)


def _sketch(values: Floats, is_told: NDArray[np.bool_]) -> Integers:
    """int64 [S, V, SKETCH] of the values [N, S, V] that are told."""
    places = np.nan_to_num((values - LOWEST) / WIDTH, posinf=SKETCH)
    bins = np.clip(places, 0, SKETCH - 1).astype(np.int64)
    counts = np.zeros((*values.shape[1:], SKETCH), np.int64)
    _, s, v = np.nonzero(is_told)
    np.add.at(counts, (s, v, bins[is_told]), 1)
    return counts


def outline_forms(structures: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `OutlineScore.to_arrays`."""
    shape = (structures, len(MEASURES))
    return {
        "outline_found": ("int64", (structures, len(FOUND))),
        "outline_sums": ("float64", shape),
        "outline_cases": ("int64", shape),
        "outline_squares": ("float64", (*shape, 3)),
        "outline_patients": ("int64", shape),
        "outline_sketch": ("uint32", (*shape, SKETCH)),
    }


@dataclass(frozen=True, eq=False)
class OutlineLinks:
    """What links M models' outlines of one site's cases. `products`: float64 [S, V, 2M, 2M], sums over
    patients of the products of what each patient adds to the models' sums (the first M) and to their numbers
    of cases (the last M) of a measure; NaN between models of different runs, that no site had at hand
    together. `patients`: int64 [S, V], with a defined case for any model. `drawn`: float32
    [S, V, 2M, REPLICATES], replicates of the same sums: what links models of different runs. `differences`:
    int64 [S, M (M - 1) / 2, BINS], patients by their difference in Dice between two models (see
    `signed_ranks`); below 0 between models of different runs.
    """

    products: Floats
    patients: Integers
    drawn: Replicates
    differences: Integers

    @classmethod
    def of(
        cls, values: Sequence[Floats], patients: Sequence[str], seed: bytes, least: int = 1
    ) -> OutlineLinks:
        """From each model's values [N, S, V], one patient name per case; `least` as of `OutlineScore.of`.

        `seed`: the site's own, for these cases (see `replicates`).
        """
        of_models = np.stack(values, axis=-1)
        is_defined = np.isfinite(of_models)
        numbers, count = patient_numbers(patients, len(of_models))
        n = sum_by_patient(is_defined.astype(np.float64), numbers, count)
        x = sum_by_patient(np.where(is_defined, of_models, 0.0), numbers, count)
        told = _tellable(n > 0, least)
        rows = np.concatenate([x * told, n * told], axis=-1)
        members = ((n > 0) & told).any(axis=-1).sum(axis=0)
        drawn = replicate(rows.reshape(count, -1), seed).reshape(*rows.shape[1:], REPLICATES)
        products = np.einsum("psva,psvb->svab", rows, rows)
        differences = count_differences([of[..., DICE] for of in values], patients, least)
        for pair, (i, j) in enumerate(combinations(range(len(values)), 2)):
            differences[:, pair] *= (told[:, DICE, i] & told[:, DICE, j])[:, None]
        return cls(products, members.astype(np.int64), drawn, differences)

    def __add__(self, other: OutlineLinks) -> OutlineLinks:
        return OutlineLinks(
            self.products + other.products,
            self.patients + other.patients,
            self.drawn + other.drawn,
            self.differences + other.differences,
        )

    def squares(self, structure: int, measure: int, weights: Floats) -> float:
        """The sum over patients of the squares of what each adds to the models' sums and numbers of cases,
        weighted by `weights`, float64 [2M]: exact for models of one run, else from the replicates, with a
        relative error of √(2 / REPLICATES) = 4.5% (2.2% of a standard error), however alike the models are.
        """
        used, at = np.flatnonzero(weights), (structure, measure)
        exact = float(weights[used] @ self.products[at][np.ix_(used, used)] @ weights[used])
        return exact if np.isfinite(exact) else float(np.mean((weights @ self.drawn[at]) ** 2))

    @property
    def models(self) -> int:
        return int(self.products.shape[2] // 2)

    def to_arrays(self) -> Arrays:
        """As `outline_links_forms` says."""
        return {
            "outline_products": self.products,
            "outline_linked_patients": self.patients,
            "outline_replicates": self.drawn,
            "outline_differences": self.differences.astype(np.uint32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> OutlineLinks:
        """Raises FederationError for arrays that are missing, misshapen or don't fit together."""
        products = received(arrays, "outline_products", (-1, len(MEASURES), -1, -1), np.float64)
        patients = received(arrays, "outline_linked_patients", products.shape[:2], np.int64)
        is_square = products.shape[2] == products.shape[3] and products.shape[2] % 2 == 0
        if not is_square or not np.allclose(products, products.swapaxes(2, 3)):
            raise FederationError("the sums that link outlines don't fit together")
        models = products.shape[2] // 2
        drawn = received(arrays, "outline_replicates", (*products.shape[:3], REPLICATES), np.float32)
        pairs = (len(products), models * (models - 1) // 2, BINS)
        differences = received(arrays, "outline_differences", pairs, np.int64)
        if (differences.sum(axis=2) > patients[:, [DICE]]).any():
            raise FederationError("more patients differ between two models than have a case")
        return cls(products, patients, drawn, differences)


def _tellable(has: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Which models are told of, bool [S, V, M]; `has` [P, S, V, M]: which patients have a defined case under
    each. Those under which `least` patients have one, but for one that leaves fewer of an earlier model's, or
    adds fewer to them. Products with their numbers of cases would set these off.
    """
    told: NDArray[np.bool_] = has.sum(axis=0) >= least
    for model in range(has.shape[-1]):
        for other in range(model):
            for apart in (has[..., model] & ~has[..., other], has[..., other] & ~has[..., model]):
                few = (apart.sum(axis=0) > 0) & (apart.sum(axis=0) < least)
                told[..., model] &= ~(few & told[..., other])
    return told


def outline_links_forms(structures: int, models: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `OutlineLinks.to_arrays`."""
    shape = (structures, len(MEASURES))
    return {
        "outline_products": ("float64", (*shape, 2 * models, 2 * models)),
        "outline_linked_patients": ("int64", shape),
        "outline_replicates": ("float32", (*shape, 2 * models, REPLICATES)),
        "outline_differences": ("uint32", (structures, models * (models - 1) // 2, BINS)),
    }
