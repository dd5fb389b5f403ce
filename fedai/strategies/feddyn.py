"""FedDyn: sites' losses are bent so that their optima agree (Acar et al., ICLR 2021).

A site keeps g, at first zero, and minimises its loss - g w + alpha/2 |w - x|^2, with x the weights sent; then
g -= alpha (w - x). At the server, with h at first zero:

h -= alpha (answers / sites) mean(w - x);  x = mean(w) - h / alpha
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.aggregation import EqualMean
from fedai.strategies.rule import Arrays, Conditions, Pull, Rule, State
from fedai.weights import Floats, Weights

GRADIENT, PART = "gradient", "part"


class FedDyn(Rule):
    """Dynamic regularisation with weight `alpha`; sites count alike (Acar et al., ICLR 2021)."""

    name: Literal["FedDyn"]
    alpha: Annotated[float, Field(gt=0, le=100)] = 0.01

    def gather(self, conditions: Conditions) -> AnsweringPart:
        return AnsweringPart(conditions.layout, among=conditions.sites)

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        change = update.parameters.astype(np.float64)
        drift = state.get("drift", 0.0) - self.alpha * state[PART] * change
        moved = start.parameters + change - drift / self.alpha
        return Weights(moved.astype(np.float32), update.buffers, update.counters), {"drift": drift}

    def pull(self, told: Arrays, kept: Arrays) -> Pull:
        return Pull(offset=-kept[GRADIENT] if GRADIENT in kept else None, toward=self.alpha)

    def leave(self, told: Arrays, kept: Arrays, update: Floats, travel: float) -> tuple[Arrays, Arrays]:
        before = kept.get(GRADIENT, np.zeros_like(update))
        return {}, {GRADIENT: before - np.float32(self.alpha) * update}


class AnsweringPart(EqualMean):
    """Notes which part of the run's sites has answered."""

    def noted(self) -> State:
        return {PART: np.array([len(self.sites) / self.among])}
