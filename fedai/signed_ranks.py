"""Wilcoxon's signed-rank test of paired differences in Dice, from counts that add up.

A site counts its patients by the bin of their difference; the counts of sites add up to those of all their
patients, and the ranks follow from the counts (Wilcoxon 1945). As scipy.stats.wilcoxon has it with
`zero_method="wilcox", correction=False, method="asymptotic"`, two-sided: patients without a difference are
left out, ties have their mean rank, the variance is corrected for ties, p is on the normal distribution.

Ranks need the order of differences alone, so bins are the narrower the smaller the difference: 200 on either
side, 3.4% wide from 0.01 on, 0.00007 around 0. The p is scipy's of the binned differences, to rounding. How
far it is from scipy's of the differences themselves was measured on 200 draws each with 12, 20, 50, 200 and
1,000 patients whose differences spread by 0.003, 0.01, 0.03 and 0.1: in each of these, half of all p are
within 0.004 and 95% within 0.036; the worst of all is 0.21 off (12 patients, 0.003).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erfc

from fedai.metrics import Floats, Integers, patient_numbers, sum_by_patient

REACH = 200  # bins on either side of the one around 0
BINS = 2 * REACH + 1
LINEAR = 0.002  # differences below about this have bins of one width, above it widths grow with them


def bin_differences(differences: Floats) -> Integers:
    """The bin of each difference from -1 to 1, same shape: monotone, and of -x the mirrored bin of x."""
    steps = np.rint(REACH * np.arcsinh(np.abs(differences) / LINEAR) / np.arcsinh(1 / LINEAR))
    return np.asarray(REACH + np.sign(differences) * steps, np.int64)


def count_differences(values: Sequence[Floats], patients: Sequence[str], least: int = 1) -> Integers:
    """Patients by their difference: int64 [S, P, BINS] from each model's Dice [N, S], NaN where undefined,
    and one patient name per case. P: pairs of models, the earlier minus the later, in the order of
    `itertools.combinations`. The bin in the middle, of ±0.000035, holds who has none.

    A patient's difference is the mean over its cases where both are defined. `+` of counts is that of
    integers: exact, associative, commutative, and that of sites gives the counts of all their patients. They
    reveal differences to a bin's width, not whose; nothing of a pair that is defined for fewer than `least`
    patients, as if there were none.
    """
    numbers, count = patient_numbers(patients, len(values[0]))
    pairs = list(itertools.combinations(values, 2))
    counts = np.zeros((values[0].shape[1], len(pairs), BINS), np.int64)
    for p, (one, other) in enumerate(pairs):
        apart = one - other
        both = np.isfinite(apart)
        cases = sum_by_patient(both.astype(np.int64), numbers, count)
        means = sum_by_patient(np.where(both, apart, 0.0), numbers, count) / np.maximum(cases, 1)
        bins = bin_differences(means)
        for s in range(counts.shape[0]):
            has = cases[:, s] > 0
            if has.sum() >= least:
                counts[s, p] = np.bincount(bins[has, s], minlength=BINS)
    return counts


def pair_of(a: int, b: int, models: int) -> int:
    """Where the pair of models a < b stands among all pairs."""
    return a * (2 * models - a - 1) // 2 + b - a - 1


@dataclass(frozen=True)
class SignedRanks:
    """`more`, `less`: sums of the ranks of patients with a positive and a negative difference, of whom there
    are `patients`; `alike`: patients without one. `p`: None where nobody has one. `p_adjusted`: Holm's.
    """

    more: float
    less: float
    patients: int
    alike: int
    p: float | None = None
    p_adjusted: float | None = None

    @property
    def effect(self) -> float | None:
        """The matched-pairs rank-biserial correlation, -1 to 1 (Kerby 2014)."""
        return (self.more - self.less) / (self.more + self.less) if self.patients else None

    def to_json(self) -> dict[str, float | None]:
        return {
            "rank_sum_positive": self.more,
            "rank_sum_negative": self.less,
            "patients": self.patients,
            "patients_alike": self.alike,
            "rank_biserial": self.effect,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
        }


def signed_ranks(counts: Integers) -> SignedRanks:
    """The test of patients counted by difference, int64 [BINS]."""
    above, below = counts[REACH + 1 :], counts[:REACH][::-1]
    tied = above + below
    n, alike = int(tied.sum()), int(counts[REACH])
    ranks = np.cumsum(tied) - tied + (tied + 1) / 2
    more, less = float(above @ ranks), float(below @ ranks)
    if not n:
        return SignedRanks(more, less, n, alike)
    ties = int((tied**3 - tied).sum())
    variance = (n * (n + 1) * (2 * n + 1) - ties / 2) / 24
    z = (more - n * (n + 1) / 4) / math.sqrt(variance)
    return SignedRanks(more, less, n, alike, float(erfc(abs(z) / math.sqrt(2))))
