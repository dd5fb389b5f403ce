"""Intervals and tests from sums: pure functions, patients as the unit.

Where nothing can be estimated the answer is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, owens_t, stdtr, stdtrit

from fedai.metrics import Floats, Integers, ThresholdCounts
from fedai.placements import PlacementSums

Z95 = NormalDist().inv_cdf(0.975)
NO_VARIANCE = 1e-15  # below this, a variance of AUROCs is rounding

Interval = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """A difference of AUROCs; all but it are None where the data can't tell. `df`: degrees of freedom."""

    difference: float
    se: float | None = None
    ci95: Interval | None = None
    p: float | None = None
    df: float | None = None


def auroc_covariance(sums: PlacementSums) -> Floats:
    """Covariance of all AUROCs, [q, q] in the order of the sums' entries, clustered by patient.

    Obuchowski NA, Biometrics 1997;53:567 (equation 2), which is DeLong's (Biometrics 1988;44:837) where every
    patient has one case. Between two comparisons of a multi-class task, where the paper is silent, the
    factor is patients / (patients - 1). NaN for a comparison with fewer than two patients on a side.
    """
    return cast(Floats, covariance_parts(sums).sum(axis=(0, 1)))


def covariance_parts(sums: PlacementSums) -> Floats:
    """What each pair of sides adds to `auroc_covariance`: [side, side, q, q]."""
    sides, k = sums.cases.shape
    shape = (sides, sums.models, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = _small_sample_factors(sums.members, sums.patients)
        scale = np.where(sums.members > 1, 1 / sums.cases, np.nan)
        products = sums.products.reshape(*shape, *shape)
        blocks = np.einsum("smktnl,sktl,sk,tl->stmknl", products, factors, scale, scale)
    return cast(Floats, blocks.reshape(sides, sides, sums.models * k, sums.models * k))


def degrees_of_freedom(weights: ArrayLike, parts: Floats, members: Integers) -> float:
    """Of the variance of sum(weights * aurocs): Welch and Satterthwaite's, from its two sides' patients.

    Satterthwaite FE, Biometrics Bulletin 1946;2:110. weights [q], `parts` as of `covariance_parts`, members
    [side, K]. 1 where a side has fewer than two patients.
    """
    c = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(c)
    own = np.array([c[used] @ parts[side, side][np.ix_(used, used)] @ c[used] for side in (0, 1)])
    fewest = members[:, np.unique(used % members.shape[1])].min(axis=1) - 1
    if not np.isfinite(own).all() or (fewest < 1).any() or not own.sum() > NO_VARIANCE:
        return 1.0
    return float(own.sum() ** 2 / (own**2 / fewest).sum())


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


def auroc_interval(auroc: float, variance: float, pairs: int, df: float = math.inf) -> Interval | None:
    """95% interval of an AUROC, or of a mean of AUROCs: Wald's on the logit scale, so within [0, 1].

    At exactly 1 (or 0), where that has no width, an exact conservative bound: `pairs` independent pairs were
    all ordered rightly, so the lower end is 0.025 ** (1 / pairs). None where there are too few patients for
    a variance, or scores are all alike.
    """
    if auroc in (0.0, 1.0):
        edge = 0.025 ** (1 / pairs)
        return (edge, 1.0) if auroc == 1.0 else (0.0, 1.0 - edge)
    return wald_interval(auroc, variance, df)


def wald_interval(value: float, variance: float, df: float = math.inf) -> Interval | None:
    """95% interval of a share, on the logit scale and t; None at 0 and 1 and without a variance."""
    if not (0 < value < 1) or not variance > NO_VARIANCE:
        return None
    centre = math.log(value / (1 - value))
    reach = float(stdtrit(df, 0.975)) * math.sqrt(variance) / (value * (1 - value))
    return _expit(centre - reach), _expit(centre + reach)


def score_interval(
    auroc: float, variance: float, df: float, cases: Sequence[int], members: Sequence[int]
) -> Interval | None:
    """95% interval of an AUROC: all values θ with |auroc - θ| ≤ t · √V(θ), within [0, 1].

    V(θ) is the variance that a binormal model gives at θ for as many independent patients, times the ratio of
    the measured variance to the model's at `auroc`; so it is wide towards 1/2 and narrow towards 1, as it
    should be. `cases`, `members`: negative and positive cases, and patients with such. The ratio isn't taken
    below what independent cases would give: with few positives a measured variance is often too small by far.
    At exactly 1 or 0 see `auroc_interval`.
    """
    return stratified_interval(auroc, variance, df, [(1.0, cases, members)])


Stratum = tuple[float, Sequence[int], Sequence[int]]  # weight, then cases and members of `score_interval`


def stratified_interval(
    auroc: float, variance: float, df: float, strata: Sequence[Stratum]
) -> Interval | None:
    """The same for the mean, by weights, of AUROCs of independent strata, such as sites. `variance`: its."""
    if auroc in (0.0, 1.0):
        return auroc_interval(auroc, variance, max(1, sum(min(members) for _, _, members in strata)))
    if not (0 < auroc < 1) or not variance > NO_VARIANCE:
        return None

    of_cases = [(weight, cases) for weight, cases, _ in strata]
    of_members = [(weight, members) for weight, _, members in strata]
    worth = max(variance, _modelled(auroc, of_cases)) / _modelled(auroc, of_members)
    t = float(stdtrit(df, 0.975))

    def outside(theta: float) -> bool:
        return abs(auroc - theta) > t * math.sqrt(worth * _modelled(theta, of_members))

    return _edge(auroc, 0.0, outside), _edge(auroc, 1.0, outside)


def _modelled(auroc: float, strata: Sequence[tuple[float, Sequence[int]]]) -> float:
    return sum(weight * weight * binormal_variance(auroc, sizes) for weight, sizes in strata)


def _edge(inner: float, outer: float, outside: Callable[[float], bool]) -> float:
    """Where it begins to be outside, from inner to outer, by halving."""
    for _ in range(34):
        middle = (inner + outer) / 2
        inner, outer = (inner, middle) if outside(middle) else (middle, outer)
    return inner


def steady_variance(auroc: float, variance: float, cases: Sequence[int]) -> float:
    """The measured variance, or that of independent cases of a binormal model if it is larger."""
    return max(variance, binormal_variance(auroc, cases))


def binormal_variance(auroc: float, sizes: Sequence[int]) -> float:
    """Variance of the AUROC of `sizes` independent negatives and positives, both normal with one variance."""
    c = float(ndtri(auroc))
    both = float(ndtr(c) - 2 * owens_t(c, math.sqrt(1 / 3)))  # one positive above each of two negatives
    spread = auroc * (1 - auroc) + (sum(sizes) - 2) * max(0.0, both - auroc * auroc)
    return spread / (sizes[0] * sizes[1])


def _expit(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def contrast(
    weights: ArrayLike, aurocs: ArrayLike, covariance: Floats, df: float = math.inf
) -> Contrast | None:
    """Test of sum(weights * aurocs) = 0 (Wald, on t): weights and aurocs [q], covariance [q, q].

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
        return Contrast(difference)
    se, reach = math.sqrt(variance), float(stdtrit(df, 0.975)) * math.sqrt(variance)
    p = 2 * float(stdtr(df, -abs(difference) / se))
    return Contrast(difference, se, (difference - reach, difference + reach), p, df)


def non_inferiority(found: Contrast, margin: float) -> float | None:
    """One-sided p for the difference being no worse than -margin; None where there is no variance."""
    if found.se is None or found.df is None:
        return None
    return float(stdtr(found.df, -(found.difference + margin) / found.se))


def mcnemar(discordance: float, squares: float) -> float | None:
    """Two-sided p of equal shares of right calls, clustered by patient, without correction.

    `discordance`: cases that only the first model calls rightly minus those of the second. `squares`: the sum
    over patients of the square of their part in it. Obuchowski NA, Stat Med 1998;17:1495; McNemar's
    (Psychometrika 1947;12:153) where every patient has one case. None where no case is discordant.
    """
    if not squares > 0:
        return None
    return 2 * float(ndtr(-abs(discordance) / math.sqrt(squares)))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm, Scand J Stat 1979;6:65). What isn't known stays None and
    counts nonetheless: the family is what was asked."""
    adjusted: list[float | None] = [None] * len(ps)
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(ps) - rank)))
        adjusted[i] = largest
    return adjusted


def mean_interval(mean: float, squares: ArrayLike, patients: int, cases: float) -> Interval | None:
    """95% interval of a mean over cases, clustered by patient (ratio estimator, on t).

    `squares` [3]: sums over patients of x*x, x*n, n*n, x being the sum over a patient's n cases. None where
    all cases are alike: they can't tell how far others are.
    """
    xx, xn, nn = (float(v) for v in np.asarray(squares))
    if patients < 2 or not cases > 0:
        return None
    spread = max(0.0, xx - 2 * mean * xn + mean * mean * nn) * patients / (patients - 1)
    reach = float(stdtrit(patients - 1, 0.975)) * math.sqrt(spread) / cases
    return (mean - reach, mean + reach) if reach > 0 else None


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
