"""FedAdam: Adam at the server (Reddi et al., ICLR 2021), with Adam's bias correction as Flower applies it."""

from __future__ import annotations

import math
from typing import Literal

from fedai.strategies.adaptive import Decay, Rate, Tau, step_adaptively
from fedai.strategies.rule import Rule, State
from fedai.weights import Weights


class FedAdam(Rule):
    """v = beta2 v + (1 - beta2) update^2; the rate is corrected for both averages' start at zero."""

    name: Literal["FedAdam"]
    learning_rate: Rate = 0.1
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Tau = 1e-3

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        beta2, steps = self.beta2, number + 1.0
        correction = math.sqrt(1 - beta2**steps) / (1 - self.beta1**steps)
        return step_adaptively(
            start, update, state, lambda v, squared: beta2 * v + (1 - beta2) * squared,
            rate=self.learning_rate * correction, beta1=self.beta1, tau=self.tau,
        )  # fmt: skip
