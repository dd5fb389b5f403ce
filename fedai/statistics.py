"""Intervals and tests from sums: pure functions, patients as the unit.

Where nothing can be estimated the answer is None, never NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from fedai.metrics import Floats, Integers, ThresholdCounts
from fedai.placements import PlacementSums

Z95 = NormalDist().inv_cdf(0.975)
NO_VARIANCE = 1e-15  # below this, a variance of AUROCs is rounding

Interval = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """A difference of AUROCs; `se`, `ci95` and `p` are None where the data can't tell."""

    difference: float
    se: float | None
    ci95: Interval | None
    p: float | None


def auroc_covariance(sums: PlacementSums) -> Floats:
    """Covariance of all AUROCs, [q, q] in the order of the sums' entries, clustered by patient.

    Obuchowski NA, Biometrics 1997;53:567 (equation 2), which is DeLong's (Biometrics 1988;44:837) where every
    patient has one case. Between two comparisons of a multi-class task, where the paper is silent, the
    factor is patients / (patients - 1). NaN for a comparison with fewer than two patients on a side.
    """
    sides, k = sums.cases.shape
    shape = (sides, sums.models, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = _small_sample_factors(sums.members, sums.patients)
        scale = np.where(sums.members > 1, 1 / sums.cases, np.nan)
        products = sums.products.reshape(*shape, *shape)
        blocks = np.einsum("smktnl,sktl,sk,tl->mknl", products, factors, scale, scale)
    return cast(Floats, blocks.reshape(sums.models * k, sums.models * k))


def _small_sample_factors(members: Integers, patients: int) -> Floats:
    """[side, K, side, K]: n / (n - 1) with n the patients of a side, or all patients across sides."""
    sides, k = members.shape
    factors = np.full((sides, k, sides, k), patients / (patients - 1) if patients > 1 else np.nan)
    side, column = np.indices((sides, k))
    factors[side, column, side, column] = members / (members - 1)
    return factors


def disjoint_pairs(members: Integers, patients: int) -> int:
    """Pairs of a positive and a negative, no patient in two, that the comparisons surely hold in equal parts.

    `members`: int64 [side, K], patients with cases on each side of each of K comparisons.
    """
    return max(1, min(int(members.shape[1] * members.min()), patients // 2))


def auroc_interval(auroc: float, variance: float, pairs: int) -> Interval | None:
    """95% interval of an AUROC, or of a mean of AUROCs: Wald's on the logit scale, so within [0, 1].

    At exactly 1 (or 0), where that has no width, an exact conservative bound: `pairs` independent pairs were
    all ordered rightly, so the lower end is 0.025 ** (1 / pairs). None where there are too few patients for
    a variance, or scores are all alike.
    """
    if auroc in (0.0, 1.0):
        edge = 0.025 ** (1 / pairs)
        return (edge, 1.0) if auroc == 1.0 else (0.0, 1.0 - edge)
    if not (0 < auroc < 1) or not variance > NO_VARIANCE:
        return None
    centre = math.log(auroc / (1 - auroc))
    reach = Z95 * math.sqrt(variance) / (auroc * (1 - auroc))
    return _expit(centre - reach), _expit(centre + reach)


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def contrast(weights: ArrayLike, aurocs: ArrayLike, covariance: Floats) -> Contrast | None:
    """Test of sum(weights * aurocs) = 0 (Wald): weights and aurocs [q], covariance [q, q].

    Entries of weight 0 play no part, so theirs may be NaN. None if an AUROC with weight isn't known. Models
    that order all cases alike differ by exactly 0 and have no interval.
    """
    c = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(c)
    c, a = c[used], np.asarray(aurocs, dtype=np.float64)[used]
    if not np.isfinite(a).all():
        return None
    difference, variance = float(c @ a), float(c @ covariance[np.ix_(used, used)] @ c)
    if not variance > NO_VARIANCE:
        return Contrast(difference, None, None, None)
    se = math.sqrt(variance)
    p = math.erfc(abs(difference) / se / math.sqrt(2))
    return Contrast(difference, se, (difference - Z95 * se, difference + Z95 * se), p)


def combined_variance(weights: ArrayLike, covariance: Floats) -> float:
    """Variance of sum(weights * aurocs); NaN if it can't be had."""
    c = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(c)
    return float(c[used] @ covariance[np.ix_(used, used)] @ c[used])


def wilson_interval(share: float, size: float) -> Interval | None:
    """Wilson's 95% interval of a proportion of `size` independent cases (JASA 1927;22:209); None for none."""
    if not size > 0 or not math.isfinite(share):
        return None
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    reach = Z95 * math.sqrt(share * (1 - share) / size + z2 / (4 * size * size)) / (1 + z2 / size)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def effective_size(share: float, squares: ArrayLike, patients: int, cases: int) -> float:
    """Independent cases that clustered ones are worth for a proportion: Rao & Scott, Biometrics 1992;48:577.

    `squares` [3]: sums over patients of h*h, h*n, n*n (see ThresholdCounts). Never above `cases`. Where the
    ratio estimator has no variance (share 0 or 1, one patient): the worst case, in which a patient's cases
    are all alike.
    """
    hh, hn, nn = (float(x) for x in np.asarray(squares))
    if cases == 0:
        return 0.0
    spread = hh - 2 * share * hn + share * share * nn
    if patients < 2 or not spread > 1e-12 or share in (0.0, 1.0):
        return cases * cases / nn
    return min(float(cases), share * (1 - share) * cases * cases * (patients - 1) / (patients * spread))


def call_interval(calls: ThresholdCounts, k: int, side: int) -> Interval | None:
    """95% interval of comparison k's sensitivity (side 1) or specificity (side 0), clustered by patient."""
    share = float((calls.sensitivity() if side else calls.specificity())[k])
    tp, fp, tn, fn = (int(n) for n in calls.counts[k])
    cases = tp + fn if side else tn + fp
    size = effective_size(share, calls.squares[k, side], int(calls.patients[k, side]), cases)
    return wilson_interval(share, size)
