"""What links the models of a run on one site's cases: the second round of a judgement, as values with `+`.

`Linked` depends on the histograms that placements are made in (the pooled ones, or the site's own), so only
those made in the same ones may be added; `JointCalls` doesn't.

What a server that lies about the other sites can make of the former is told in `placements`: here it gets,
for each model, sums of squares for two more functions of the score that follow from the pool it made up
(influence on the average precision, residuals of calibration).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.calibration import recalibrate, score_products
from fedai.errors import FederationError
from fedai.metrics import (
    Arrays,
    Floats,
    Integers,
    ScoreHistogram,
    bin_scores,
    one_against_rest,
    patient_numbers,
    received,
    sides,
    sum_by_patient,
)
from fedai.placements import PlacementSums, deviations_of, place
from fedai.precision_recall import influences
from fedai.replicates import REPLICATES, Replicates, replicate

ArrayForms = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, eq=False)
class Linked:
    """Entries are models x K, model-major, q in all. `precisions`: float64 [q], sums over patients of the
    squared influence on the average precision. `recalibrations`: float64 [q, 3, 3], see
    `calibration.score_products`. `replicates`: float32 [2q, REPLICATES] of the placements' deviations.
    """

    placements: PlacementSums
    precisions: Floats
    recalibrations: Floats
    replicates: Replicates

    @classmethod
    def of(
        cls,
        scores: Sequence[ArrayLike],
        histograms: Sequence[ScoreHistogram],
        labels: ArrayLike,
        patients: Sequence[str],
        seed: bytes,
    ) -> Linked:
        """From each model's softmax scores [N, C] and histogram to place in, labels [N], patients [N].

        `seed`: the site's own, for these cases (see `replicates`).
        """
        numbers = patient_numbers(patients, len(patients))
        placed = place(scores, histograms, labels, patients)
        precisions, recalibrations = [], []
        for of_model, histogram in zip(scores, histograms, strict=True):
            p, positive = one_against_rest(of_model, labels)
            added = sum_by_patient(_influence(p, positive, histogram), *numbers)
            precisions.append((added**2).sum(axis=0))
            fitted = [recalibrate(counts) for counts in histogram.counts]
            recalibrations.append(score_products(p, positive, fitted, *numbers))
        return cls(
            PlacementSums.of_placed(*placed),
            np.concatenate(precisions),
            np.concatenate(recalibrations),
            replicate(deviations_of(*placed), seed),
        )

    def __add__(self, other: Linked) -> Linked:
        return Linked(
            self.placements + other.placements,
            self.precisions + other.precisions,
            self.recalibrations + other.recalibrations,
            self.replicates + other.replicates,
        )

    def to_arrays(self) -> Arrays:
        """As `linked_forms` says."""
        return {
            **self.placements.to_arrays(),
            "precisions": self.precisions,
            "recalibrations": self.recalibrations,
            "replicates": self.replicates,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Linked:
        """Raises FederationError for arrays that are missing, misshapen, or don't fit together."""
        placements = PlacementSums.from_arrays(arrays)
        q = placements.sums.shape[1]
        precisions = received(arrays, "precisions", (q,), np.float64)
        if (precisions < 0).any():
            raise FederationError("sums of squares are below zero")
        recalibrations = received(arrays, "recalibrations", (q, 3, 3), np.float64)
        drawn = received(arrays, "replicates", (2 * q, REPLICATES), np.float32)
        return cls(placements, precisions, recalibrations, drawn)


def _influence(p: Floats, positive: NDArray[np.bool_], histogram: ScoreHistogram) -> Floats:
    """[N, K]: influence of each case on its comparison's average precision."""
    bins, side = bin_scores(p), positive.astype(np.int64)
    tables = [influences(counts) for counts in histogram.counts]
    return np.stack([table[side[:, k], bins[:, k]] for k, table in enumerate(tables)], axis=1)


def linked_forms(models: int, k: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `Linked.to_arrays`."""
    q = models * k
    return {
        "placement_products": ("float64", (2 * q, 2 * q)),
        "placement_sums": ("float64", (2, q)),
        "placement_cases": ("int64", (2, k)),
        "placement_members": ("int64", (2, k)),
        "placement_patients": ("int64", (1,)),
        "precisions": ("float64", (q,)),
        "recalibrations": ("float64", (q, 3, 3)),
        "replicates": ("float32", (2 * q, REPLICATES)),
    }


@dataclass(frozen=True, eq=False)
class JointCalls:
    """Which models call the same cases rightly, at the threshold.

    `both`: int64 [side, q, q], cases that both entries call rightly (the diagonal: that one does; -1 where
    that isn't known). `products`: float64 [2q, 2q], sums over patients of the products of their numbers of
    rightly called cases, entries side-major. `cases`: int64 [side, K]. `replicates`: float32 [2q, REPLICATES]
    of these numbers.
    """

    both: Integers
    products: Floats
    cases: Integers
    replicates: Replicates

    @classmethod
    def of(
        cls,
        scores: Sequence[ArrayLike],
        labels: ArrayLike,
        patients: Sequence[str],
        threshold: float,
        seed: bytes,
    ) -> JointCalls:
        """From each model's softmax scores [N, C], labels [N], patients [N]; positive: score >= threshold."""
        pairs = [one_against_rest(of_model, labels) for of_model in scores]
        positive = np.concatenate([member for _, member in pairs], axis=1)
        right = (np.concatenate([p for p, _ in pairs], axis=1) >= threshold) == positive
        by_side = sides(right.astype(np.int64), positive)  # [N, side, q]
        rows = sum_by_patient(by_side, *patient_numbers(patients, len(right))).reshape(-1, 2 * right.shape[1])
        k = pairs[0][1].shape[1]
        return cls(
            np.einsum("nsi,nsj->sij", by_side, by_side, optimize=True),
            (rows.T @ rows).astype(np.float64),
            sides(np.ones((len(right), k), np.int64), positive[:, :k]).sum(axis=0),
            replicate(rows, seed),
        )

    def __add__(self, other: JointCalls) -> JointCalls:
        return JointCalls(
            self.both + other.both,
            self.products + other.products,
            self.cases + other.cases,
            self.replicates + other.replicates,
        )

    def to_arrays(self) -> Arrays:
        """As `calls_forms` says."""
        return {
            "calls_both": self.both,
            "calls_products": self.products,
            "calls_cases": self.cases,
            "calls_replicates": self.replicates,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> JointCalls:
        """Raises FederationError for arrays that are missing, misshapen, or don't fit together."""
        both = received(arrays, "calls_both", (2, -1, -1), np.int64)
        q = both.shape[1]
        products = received(arrays, "calls_products", (2 * q, 2 * q), np.float64)
        cases = received(arrays, "calls_cases", (2, -1), np.int64)
        drawn = received(arrays, "calls_replicates", (2 * q, REPLICATES), np.float32)
        k = cases.shape[1]
        if both.shape[2] != q or not k or q % k or not np.allclose(products, products.T):
            raise FederationError("the sums of joint calls don't fit together")
        if (both > np.tile(cases, (1, q // k))[:, :, None]).any():
            raise FederationError("more cases are called rightly than there are")
        return cls(both, products, cases, drawn)


def calls_forms(models: int, k: int) -> ArrayForms:
    """Name -> dtype and shape of every array of `JointCalls.to_arrays`."""
    q = models * k
    return {
        "calls_both": ("int64", (2, q, q)),
        "calls_products": ("float64", (2 * q, 2 * q)),
        "calls_cases": ("int64", (2, k)),
        "calls_replicates": ("float32", (2 * q, REPLICATES)),
    }
