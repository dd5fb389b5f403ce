"""Random-effects meta-analysis: what the sites say together, and what a further hospital may expect.

Between-site variance by Paule & Mandel (J Res Natl Bur Stand 1982;87:377); interval by Hartung & Knapp (Stat
Med 2001;20:3875) with the variance never below the ordinary one (Röver, Knapp & Friede, BMC Med Res Methodol
2015;15:99); I² by Higgins & Thompson (Stat Med 2002;21:1539) from Cochran's Q; prediction interval with k - 2
degrees of freedom (Higgins, Thompson & Spiegelhalter, J R Stat Soc A 2009;172:137).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtrit

from fedai.metrics import Floats

Interval = tuple[float, float]
FEWEST_SITES = 2
FEWEST_FOR_PREDICTION = 3


@dataclass(frozen=True)
class RandomEffects:
    """`estimate`, `ci95`, `prediction95` and `tau` on the effects' scale; `i2` from 0 to 1; `q` Cochran's.

    `prediction95`: where 95% of hospitals like these are expected; None with fewer than three sites.
    """

    sites: int
    estimate: float
    se: float
    ci95: Interval
    tau: float
    q: float
    i2: float
    prediction95: Interval | None


def random_effects(effects: ArrayLike, variances: ArrayLike) -> RandomEffects | None:
    """From one effect [k] and its variance [k] per site; None with fewer than two sites.

    Raises ValueError where an effect isn't finite or a variance isn't above zero.
    """
    y, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if not (np.isfinite(y).all() and np.isfinite(v).all() and (v > 0).all()):
        raise ValueError("effects must be finite and variances above zero")
    if len(y) < FEWEST_SITES:
        return None
    k, tau2, q = len(y), between_sites(y, v), _generalised_q(0.0, y, v)
    weights = 1 / (v + tau2)
    estimate, plain = _mean(y, weights), 1 / float(weights.sum())
    variance = plain * max(1.0, _generalised_q(tau2, y, v) / (k - 1))
    reach = float(stdtrit(k - 1, 0.975)) * math.sqrt(variance)
    return RandomEffects(
        k,
        estimate,
        math.sqrt(variance),
        (estimate - reach, estimate + reach),
        math.sqrt(tau2),
        q,
        max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0,
        _prediction(estimate, variance + tau2, k),
    )


def between_sites(effects: Floats, variances: Floats) -> float:
    """Paule and Mandel's variance between sites: where the generalised Q is k - 1, or 0."""
    k = len(effects)
    if _generalised_q(0.0, effects, variances) <= k - 1:
        return 0.0
    high = float(np.var(effects, ddof=1))
    while _generalised_q(high, effects, variances) > k - 1:
        high *= 2
    found = brentq(
        lambda t: _generalised_q(t, effects, variances) - (k - 1), 0.0, high, xtol=1e-15, rtol=1e-14
    )
    return float(found)


def _generalised_q(tau2: float, effects: Floats, variances: Floats) -> float:
    weights = 1 / (variances + tau2)
    return float((weights * (effects - _mean(effects, weights)) ** 2).sum())


def _mean(effects: Floats, weights: Floats) -> float:
    return float((weights * effects).sum() / weights.sum())


def _prediction(estimate: float, variance: float, k: int) -> Interval | None:
    if k < FEWEST_FOR_PREDICTION:
        return None
    reach = float(stdtrit(k - 2, 0.975)) * math.sqrt(variance)
    return estimate - reach, estimate + reach
