"""FedAvgM: the mean update as a gradient with momentum (Hsu, Qi and Brown, arXiv:1909.06335)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.strategies.rule import Rule, State
from fedai.weights import Weights


class FedAvgM(Rule):
    """v = momentum * v + update; weights += learning_rate * v (Hsu et al., 2019)."""

    name: Literal["FedAvgM"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        velocity = self.momentum * state.get("velocity", 0.0) + update.parameters.astype(np.float64)
        moved = start.parameters + self.learning_rate * velocity
        weights = Weights(moved.astype(np.float32), update.buffers, update.counters)
        return weights, {"velocity": velocity}
