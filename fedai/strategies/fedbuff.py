"""FedBuff: a round closes when `buffer` updates have come, and a late one is folded into the round that is
open when it comes (Nguyen et al., AISTATS 2022). Nobody waits for the slowest site.

With n a site's cases and s its staleness, the rounds that have closed since it was sent its weights:
weights += learning_rate * sum(n (1 + s)^-staleness_power update) / sum(n)
Without stale updates and with a learning rate of 1 this is FedAvg. The paper counts clients alike; here they
count by cases, as everywhere. Running statistics are a mean weighted with n (1 + s)^-staleness_power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.aggregation import NOTHING, Beside, WeightedMean, check_update
from fedai.errors import FederationError
from fedai.strategies.rule import Conditions, Rule, State
from fedai.weights import Weights


class FedBuff(Rule):
    """Rounds of `buffer` updates, stale ones among them, which count for less (Nguyen et al., 2022)."""

    name: Literal["FedBuff"]
    buffer: Annotated[int, Field(ge=1, le=1000)] = 2
    staleness_power: Annotated[float, Field(ge=0, le=10)] = 0.5
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0

    def gather(self, conditions: Conditions) -> StaleMean:
        return StaleMean(conditions.layout, power=self.staleness_power)

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        moved = start.parameters + self.learning_rate * update.parameters.astype(np.float64)
        return Weights(moved.astype(np.float32), update.buffers, update.counters), state

    def clash(self, quorum: int, sites: int) -> str:
        if not quorum <= self.buffer <= sites:
            return (
                f"strategy.buffer is {self.buffer}: at least the quorum, {quorum}, at most all {sites} sites"
            )
        return ""


@dataclass
class StaleMean(WeightedMean):
    """Updates times (1 + staleness)^-power, summed by cases and divided by all cases."""

    power: float = 0.5

    def add(
        self,
        site: str,
        update: Weights,
        cases: int,
        steps: int = 1,
        beside: Beside = NOTHING,
        *,
        staleness: int = 0,
    ) -> None:
        """Fold in an update of `staleness` rounds. Raises FederationError where it may not be averaged."""
        check_update(update, self.layout, cases)
        if staleness < 0:
            raise FederationError("the update is of a round that is still to come")
        self.fold(update, cases * (1 + staleness) ** -self.power)
        self.cases += cases
        self.sites.append(site)

    @property
    def parameter_weight(self) -> float:
        """All cases, however stale: what is stale moves the weights less, and others no more for it."""
        return float(self.cases)
