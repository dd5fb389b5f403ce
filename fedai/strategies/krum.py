"""Krum and Multi-Krum (Blanchard et al., NeurIPS 2017). Needs all updates at once: see held.py."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.aggregation import Doubles, WeightedMean
from fedai.strategies.held import HeldUpdates, squared_distances
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Weights

Liars = Annotated[int, Field(ge=1, le=499)]


class Krum(Rule):
    """The `keep` updates that lie closest to their neighbours, averaged, whatever cases they claim; `keep: 1`
    is Krum, more is Multi-Krum (Blanchard et al., NeurIPS 2017). `liars`: how many sites may send anything.
    """

    name: Literal["Krum"]
    liars: Liars = 1
    keep: Annotated[int, Field(ge=1, le=1000)] = 1

    def gather(self, conditions: Conditions) -> HeldUpdates:
        return HeldUpdates(conditions.layout, self._combine, conditions.folder, self.least_answers)

    @property
    def least_answers(self) -> int:
        return max(2 * self.liars + 3, self.keep + self.liars)

    def _combine(self, held: HeldUpdates) -> Weights:
        mean = WeightedMean(held.layout)
        for rank in closest(squared_distances(held), self.liars, self.keep):
            place = held.order[rank]
            mean.add(held.sites[place], held.read(place), 1)
        return mean.update()


def closest(distances: Doubles, liars: int, keep: int) -> list[int]:
    """The `keep` rows of float64 [n, n] whose n - liars - 2 nearest others are nearest in sum."""
    near = max(1, len(distances) - liars - 2)
    scores = np.sort(distances, axis=1)[:, 1 : near + 1].sum(axis=1)
    return sorted(np.argsort(scores, kind="stable")[:keep].tolist())
