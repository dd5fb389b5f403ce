"""SCAFFOLD: control variates take out the drift of each site (Karimireddy et al., ICML 2020, option II).

c, the server's, and c_i, a site's, begin at zero. A site's steps follow its gradient - c_i + c; then

c_i' = c_i - c + (x - y_i) / (K rate)        x: weights sent, y_i: after K steps
x += learning_rate * mean(y_i - x);  c += (answers / sites) * mean(c_i' - c_i)

Of c_i only the change leaves the site, in the array `control`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from fedai.aggregation import LARGEST_TERM, NOTHING, Beside, EqualMean, ExactSum
from fedai.errors import FederationError
from fedai.registry import SGD, Optimizer
from fedai.strategies.rule import ArrayForms, Arrays, Conditions, Pull, Rule, State
from fedai.weights import Floats, Layout, Weights

CONTROL, CHANGE = "control", "control_change"


class Scaffold(Rule):
    """Control variates against drift; sites count alike, and take plain SGD steps (Karimireddy et al., ICML
    2020).
    """

    name: Literal["SCAFFOLD"]
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0

    def gather(self, conditions: Conditions) -> ControlMean:
        return ControlMean(conditions.layout, among=conditions.sites)

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        moved = start.parameters + self.learning_rate * update.parameters.astype(np.float64)
        weights = Weights(moved.astype(np.float32), update.buffers, update.counters)
        return weights, {CONTROL: state.get(CONTROL, 0.0) + state[CHANGE]}

    def tell(self, state: State, layout: Layout) -> Arrays:
        zero = np.zeros(layout.sizes()["parameters"])
        return {CONTROL: state.get(CONTROL, zero).astype(np.float32)}

    def misfit(self, optimizer: Optimizer) -> str:
        plain = isinstance(optimizer, SGD) and not optimizer.momentum
        return "" if plain else "SCAFFOLD takes plain steps: training.optimizer {name: SGD, momentum: 0}"

    def told(self, layout: Layout) -> ArrayForms:
        return {CONTROL: ("float32", (layout.sizes()["parameters"],))}

    def sent(self, layout: Layout) -> ArrayForms:
        return self.told(layout)

    def pull(self, told: Arrays, kept: Arrays) -> Pull:
        return Pull(offset=told[CONTROL] - _own(told, kept))

    def leave(self, told: Arrays, kept: Arrays, update: Floats, travel: float) -> tuple[Arrays, Arrays]:
        change = -told[CONTROL] - update / np.float32(travel)
        return {CONTROL: change}, {CONTROL: _own(told, kept) + change}


def _own(told: Arrays, kept: Arrays) -> Floats:
    return kept.get(CONTROL, np.zeros_like(told[CONTROL]))


@dataclass
class ControlMean(EqualMean):
    """Means of the updates and of the changes of the sites' control variates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._change = ExactSum(self.layout.sizes()["parameters"])

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        change = beside[CONTROL]
        if not float(np.abs(change).max(initial=0.0)) <= LARGEST_TERM:
            raise FederationError("the control variate holds NaN or values that are too large")
        super().add(site, update, cases, steps)
        self._change.add(change)

    def __add__(self, other: Self) -> Self:
        both = super().__add__(other)
        both._change = self._change + other._change
        return both

    def noted(self) -> State:
        return {CHANGE: self._change.over(self.among)}
