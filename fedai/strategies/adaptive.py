"""The step that FedAdagrad, FedAdam and FedYogi share (Reddi et al., ICLR 2021, Algorithm 2).

m = beta1 m + (1 - beta1) update;  v as each of the three says;  weights += rate m / (sqrt(v) + tau)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from fedai.aggregation import Doubles
from fedai.strategies.rule import State
from fedai.weights import Weights

Rate = Annotated[float, Field(gt=0, le=10)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Tau = Annotated[float, Field(gt=0, le=1)]


def step_adaptively(
    start: Weights,
    update: Weights,
    state: State,
    second_moment: Callable[[Doubles, Doubles], Doubles],
    *,
    rate: float,
    beta1: float,
    tau: float,
) -> tuple[Weights, State]:
    """`second_moment` gives the new v from the old one and the squared update, all float64 [P]."""
    change = update.parameters.astype(np.float64)
    zero = np.zeros_like(change)
    first = beta1 * state.get("first", zero) + (1 - beta1) * change
    second = second_moment(state.get("second", zero), change**2)
    moved = start.parameters + rate * first / (np.sqrt(second) + tau)
    weights = Weights(moved.astype(np.float32), update.buffers, update.counters)
    return weights, {"first": first, "second": second}
