"""FedNova: updates are divided by the local steps behind them, so that no site counts for more because it
takes more steps (Wang et al., NeurIPS 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from fedai.aggregation import NOTHING, Beside, WeightedMean
from fedai.registry import SGD
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Weights


class FedNova(Rule):
    """Mean of normalized updates, times the mean of the steps (Wang et al., NeurIPS 2020)."""

    name: Literal["FedNova"]

    def gather(self, conditions: Conditions) -> NormalizedMean:
        optimizer = conditions.optimizer
        momentum = optimizer.momentum if isinstance(optimizer, SGD) else 0.0
        return NormalizedMean(conditions.layout, momentum=momentum)


@dataclass
class NormalizedMean(WeightedMean):
    """Parameters: sum(p a) * sum(p update / a), with p a site's share of cases and a its `effective_steps`.
    Buffers and counters as in a weighted mean.
    """

    momentum: float = 0.0
    _lengths: list[float] = field(default_factory=list)

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        length = effective_steps(max(1, steps), self.momentum)
        normal = Weights((update.parameters / length).astype(np.float32), update.buffers, update.counters)
        super().add(site, normal, cases)
        self._lengths.append(cases * length)

    def __add__(self, other: Self) -> Self:
        both = super().__add__(other)
        both._lengths = self._lengths + other._lengths
        return both

    def update(self) -> Weights:
        mean = super().update()
        length = math.fsum(self._lengths) / self.cases  # exactly rounded, whatever the order
        return Weights((mean.parameters * length).astype(np.float32), mean.buffers, mean.counters)


def effective_steps(steps: int, momentum: float) -> float:
    """The norm of a in the paper: local steps, and how far SGD's momentum (below 1) carries each."""
    if not momentum:
        return float(steps)
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
