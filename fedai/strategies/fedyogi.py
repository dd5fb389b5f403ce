"""FedYogi: a second moment that grows and shrinks slowly (Reddi et al., ICLR 2021)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedai.strategies.adaptive import Decay, Rate, Tau, step_adaptively
from fedai.strategies.rule import Rule, State
from fedai.weights import Weights


class FedYogi(Rule):
    """v = v - (1 - beta2) update^2 sign(v - update^2)."""

    name: Literal["FedYogi"]
    learning_rate: Rate = 0.01
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Tau = 1e-3

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        rest = 1 - self.beta2
        return step_adaptively(
            start, update, state, lambda v, squared: v - rest * squared * np.sign(v - squared),
            rate=self.learning_rate, beta1=self.beta1, tau=self.tau,
        )  # fmt: skip
