"""FedAdagrad: a second moment that only grows (Reddi et al., ICLR 2021)."""

from __future__ import annotations

from typing import Literal

from fedai.strategies.adaptive import Rate, Tau, step_adaptively
from fedai.strategies.rule import Rule, State
from fedai.weights import Weights


class FedAdagrad(Rule):
    """v = v + update^2, without momentum."""

    name: Literal["FedAdagrad"]
    learning_rate: Rate = 0.1
    tau: Tau = 1e-3

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        return step_adaptively(
            start, update, state, lambda v, squared: v + squared,
            rate=self.learning_rate, beta1=0.0, tau=self.tau,
        )  # fmt: skip
