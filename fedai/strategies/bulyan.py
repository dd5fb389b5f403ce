"""Bulyan: Multi-Krum, then of each value those nearest to the median (El Mhamdi et al., ICML 2018).

Krum chooses in one go, as Flower's does, and not anew after each choice as in the paper. Needs all updates at
once: see held.py.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedai.aggregation import Doubles
from fedai.strategies.held import HeldUpdates, by_columns, squared_distances
from fedai.strategies.krum import Liars, closest
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Floats, Weights


class Bulyan(Rule):
    """n - 2 `liars` updates chosen by Krum; of each of their values the n - 4 `liars` nearest to the median,
    averaged (El Mhamdi et al., ICML 2018).
    """

    name: Literal["Bulyan"]
    liars: Liars = 1

    def gather(self, conditions: Conditions) -> HeldUpdates:
        return HeldUpdates(conditions.layout, self._combine, conditions.folder, self.least_answers)

    @property
    def least_answers(self) -> int:
        return 4 * self.liars + 3

    def _combine(self, held: HeldUpdates) -> Weights:
        chosen = len(held.sites) - 2 * self.liars
        rows = closest(squared_distances(held), self.liars, chosen)
        return by_columns(held, lambda values: around_median(values[rows], chosen - 2 * self.liars))


def around_median(values: Floats, keep: int) -> Doubles:
    """float32 [sites, width] -> float64 [width]: the mean of the `keep` values nearest to the median."""
    away = np.abs(values - np.median(values, axis=0))
    nearest = np.argsort(away, axis=0, kind="stable")[:keep]
    mean: Doubles = np.take_along_axis(values, nearest, axis=0).mean(axis=0, dtype=np.float64)
    return mean
