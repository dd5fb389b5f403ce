"""Geometric median by the smoothed Weiszfeld algorithm (RFA; Pillutla, Kakade and Harchaoui, IEEE TSP 2022).

Needs all updates at once, and reads them again in each iteration: see held.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.aggregation import Doubles, WeightedMean
from fedai.strategies.held import HeldUpdates
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Weights

SMALLEST = 1e-6  # no distance counts as less: the smoothing of the paper


class GeometricMedian(Rule):
    """The point with the least sum of distances to all updates, whatever cases they claim (Pillutla et al.,
    IEEE TSP 2022). `iterations`: each weighs the updates by the inverse of their distance.
    """

    name: Literal["GeometricMedian"]
    iterations: Annotated[int, Field(ge=1, le=1000)] = 20

    def gather(self, conditions: Conditions) -> HeldUpdates:
        return HeldUpdates(conditions.layout, self._combine, conditions.folder)

    def _combine(self, held: HeldUpdates) -> Weights:
        shares = np.full(len(held.sites), 1 / len(held.sites))
        for _ in range(self.iterations):
            shares = reweighed(distances_to(held, shares))
        mean = WeightedMean(held.layout)
        for place, share in zip(held.order, shares.tolist(), strict=True):
            mean.fold(held.read(place), share)
        found = mean.update()
        return Weights(found.parameters, found.buffers, held.middle_counters())


def distances_to(held: HeldUpdates, shares: Doubles) -> Doubles:
    """Of each update's parameters to the mean with these shares, float64 [sites], in the order of names."""
    squared = np.zeros(len(shares))
    for _, values in held.columns("parameters"):
        centre = (values * shares[:, None]).sum(axis=0)
        squared += ((values - centre) ** 2).sum(axis=1)
    return np.sqrt(squared)


def reweighed(distances: Doubles) -> Doubles:
    """Shares by the inverse of the distance, of 1 in all."""
    weights: Doubles = 1 / np.maximum(distances, SMALLEST)
    shares: Doubles = weights / weights.sum()
    return shares
