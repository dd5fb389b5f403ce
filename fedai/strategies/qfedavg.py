"""q-FedAvg: sites with a larger loss count for more (Li et al., ICLR 2020, Algorithm 2).

With F a site's loss of the weights sent, d = L (weights sent - its weights) and L = 1 / learning rate:
weights -= sum(F^q d) / sum(q F^(q-1) |d|^2 + L F^q). q = 0 is a mean in which sites count alike.
The loss leaves the site in the array `start_loss`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from fedai.aggregation import NOTHING, Beside, WeightedMean
from fedai.errors import FederationError
from fedai.strategies.rule import ArrayForms, Conditions, Rule
from fedai.weights import Layout, Weights

START_LOSS = "start_loss"
LEAST, MOST = 1e-10, 30.0  # a loss may be 0; a cross-entropy of probabilities of 1e-12 or more is below 28


class QFedAvg(Rule):
    """Fairness by `q`: sites count by their loss to the power of q (Li et al., ICLR 2020)."""

    name: Literal["qFedAvg"]
    q: Annotated[float, Field(ge=0, le=10)] = 0.1

    def gather(self, conditions: Conditions) -> FairMean:
        return FairMean(conditions.layout, q=self.q, lipschitz=1 / conditions.optimizer.learning_rate)

    def sent(self, layout: Layout) -> ArrayForms:
        return {START_LOSS: ("float64", (1,))}


@dataclass
class FairMean(WeightedMean):
    """Updates weighted by F^q, their sum divided as the paper says. Running statistics by cases."""

    q: float = 0.0
    lipschitz: float = 1.0
    _bends: list[float] = field(default_factory=list)

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        loss = float(beside[START_LOSS][0])
        if not 0 <= loss <= MOST:
            raise FederationError(f"the update claims a loss of {loss:g}")
        loss += LEAST
        self.admit(site, update, cases, loss**self.q)
        squared = float((update.parameters.astype(np.float64) ** 2).sum()) * self.lipschitz**2
        self._bends.append(self.q * loss ** (self.q - 1) * squared + self.lipschitz * loss**self.q)

    def __add__(self, other: Self) -> Self:
        both = super().__add__(other)
        both._bends = self._bends + other._bends
        return both

    def update(self) -> Weights:
        mean = super().update()
        stretch = self.lipschitz * self.parameter_weight / math.fsum(self._bends)
        return Weights((mean.parameters * stretch).astype(np.float32), mean.buffers, mean.counters)
