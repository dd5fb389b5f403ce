"""Placement sums: how far apart the AUROCs of several models could be by chance, patients being the unit.

The second round of a judgement. What leaves the site are sums over its patients, never a patient's own row.

What a server that lies about the other sites can make of it: a placement is a monotone function of the
score, and by what it adds to the pool the server can come as near as it likes to a function of its choice, a
step for instance: one for each model and side of a comparison, and another one for each further linking (at
most as many as the study has sites). Over this site's patients it then gets the sums of squares and products
of what the functions give for a patient's cases: with steps, how often patients have cases above a threshold
and, for another model, above another. It chooses the weights that it calls models too, so one network may
stand there under every name. Models are distinct, were scored in this very run, and are no more than
`fedai.wire.most_models`: so one linking is sums for a dozen thresholds or so, not a table of all cells.
Linkings of several runs add up, and how many runs there may be is not limited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedai.errors import FederationError, TrainingError
from fedai.metrics import (
    Arrays,
    Floats,
    Integers,
    ScoreHistogram,
    bin_scores,
    one_against_rest,
    patient_numbers,
    probabilities,
    ratio,
    received,
    sides,
    sum_by_patient,
)


@dataclass(frozen=True, eq=False)
class PlacementSums:
    """Sums for the covariance of all models' AUROCs, clustered by patient (DeLong 1988, Obuchowski 1997).

    Made in the second round, against the histograms of the population to be described: the pooled ones, or
    a site's own. Only sums made against the same histograms may be added. With q = models x K entries,
    model-major: `products`: float64 [2q, 2q], sums over patients of the outer product of the patient's
    deviations (for each side and entry, the sum of placement - AUROC over the patient's cases on that side).
    `sums`: float64 [2, q], sums of placements. `cases`, `members`: int64 [side, K], cases, and patients with
    at least one. `patients`: all of them.
    """

    products: Floats
    sums: Floats
    cases: Integers
    members: Integers
    patients: int

    @classmethod
    def of(
        cls,
        scores: Sequence[ArrayLike],
        histograms: Sequence[ScoreHistogram],
        labels: ArrayLike,
        patients: Sequence[str],
    ) -> PlacementSums:
        """From each model's softmax scores [N, C] and histogram to place in, labels [N], patients [N]."""
        return cls.of_placed(*place(scores, histograms, labels, patients))

    @classmethod
    def of_placed(
        cls, placed: Floats, aurocs: Floats, positive: NDArray[np.bool_], numbers: Integers, patients: int
    ) -> PlacementSums:
        """From placement values [N, models, K], the AUROCs [models, K] of where they were placed, membership
        [N, K], and each case's patient, numbered from 0, [N]."""
        deviations = deviations_of(placed, aurocs, positive, numbers, patients)
        members = sum_by_patient(sides(np.ones(positive.shape, np.int64), positive), numbers, patients)
        return cls(
            deviations.T @ deviations,
            sides(placed, positive).sum(axis=0).reshape(2, -1),
            members.sum(axis=0).astype(np.int64),
            (members > 0).sum(axis=0).astype(np.int64),
            patients,
        )

    def __add__(self, other: PlacementSums) -> PlacementSums:
        return PlacementSums(
            self.products + other.products, self.sums + other.sums, self.cases + other.cases,
            self.members + other.members, self.patients + other.patients,
        )  # fmt: skip

    @property
    def models(self) -> int:
        return int(self.sums.shape[1] // self.cases.shape[1])

    def auroc(self) -> Floats:
        """AUROC [models, K], NaN where a side is empty; the histograms' own once all sites are added."""
        positives = self.sums[1].reshape(self.models, -1)
        return ratio(positives, np.where(self.cases[0] > 0, self.cases[1], 0))

    def to_arrays(self) -> Arrays:
        """`placement_products`, `_sums` (float64), `_cases`, `_members` (int64), `_patients` (int64 [1])."""
        return {
            "placement_products": self.products,
            "placement_sums": self.sums,
            "placement_cases": self.cases,
            "placement_members": self.members,
            "placement_patients": np.array([self.patients], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> PlacementSums:
        """Raises FederationError for arrays that are missing, misshapen, negative or don't fit together."""
        sums = received(arrays, "placement_sums", (2, -1), np.float64)
        cases = received(arrays, "placement_cases", (2, -1), np.int64)
        products = received(arrays, "placement_products", (sums.size, sums.size), np.float64)
        if not cases.size or sums.size % cases.size or not np.allclose(products, products.T):
            raise FederationError("placement sums don't fit together")
        members = received(arrays, "placement_members", cases.shape, np.int64)
        patients = received(arrays, "placement_patients", (1,), np.int64)
        return cls(products, sums, cases, members, int(patients[0]))


Placed = tuple[Floats, Floats, NDArray[np.bool_], Integers, int]


def place(
    scores: Sequence[ArrayLike],
    histograms: Sequence[ScoreHistogram],
    labels: ArrayLike,
    patients: Sequence[str],
) -> Placed:
    """What `PlacementSums.of_placed` and `deviations_of` take. Raises TrainingError."""
    if len(scores) != len(histograms) or not histograms:
        raise TrainingError("every model needs its scores and its histogram")
    positive = one_against_rest(scores[0], labels)[1]
    numbers = patient_numbers(patients, len(positive))
    pairs = zip(scores, histograms, strict=True)
    placed = np.stack([_place(s, h, positive) for s, h in pairs], axis=1)
    return placed, np.stack([h.auroc() for h in histograms]), positive, *numbers


def deviations_of(
    placed: Floats, aurocs: Floats, positive: NDArray[np.bool_], numbers: Integers, patients: int
) -> Floats:
    """float64 [patients, 2q], side-major: what each patient's placements deviate from the AUROCs in all."""
    centre = np.nan_to_num(aurocs)
    deviations = sum_by_patient(sides(placed - centre, positive), numbers, patients)
    return np.asarray(deviations.reshape(patients, 2 * centre.size), np.float64)


def _place(scores: ArrayLike, histogram: ScoreHistogram, positive: NDArray[np.bool_]) -> Floats:
    """Placement value [N, K] of each case among the histogram's other side; 0 where that is empty."""
    p = probabilities(scores)
    bins = bin_scores(p[:, p.shape[1] - positive.shape[1] :])
    if bins.shape != positive.shape or len(histogram.counts) != positive.shape[1]:
        raise TrainingError("models, histograms and labels differ in their numbers of cases or classes")
    columns = np.arange(positive.shape[1])
    return np.nan_to_num(histogram.placements()[columns, positive.astype(np.int64), bins])
