"""Coordinate-wise trimmed mean (Yin et al., ICML 2018). Needs all updates at once: see held.py."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedai.aggregation import Doubles
from fedai.strategies.held import HeldUpdates, by_columns
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Floats, Weights


class TrimmedMean(Rule):
    """Of each value the `trim` highest and lowest sites are left out, the rest is averaged, whatever cases
    they claim (Yin et al., ICML 2018).
    """

    name: Literal["TrimmedMean"]
    trim: Annotated[int, Field(ge=1, le=499)] = 1

    def gather(self, conditions: Conditions) -> HeldUpdates:
        return HeldUpdates(conditions.layout, self._combine, conditions.folder, self.least_answers)

    @property
    def least_answers(self) -> int:
        return 2 * self.trim + 1

    def _combine(self, held: HeldUpdates) -> Weights:
        return by_columns(held, lambda values: trimmed_mean(values, self.trim))


def trimmed_mean(values: Floats, trim: int) -> Doubles:
    """float32 [sites, width] -> float64 [width], without the `trim` highest and lowest of each column."""
    kept = np.sort(values, axis=0)[trim : len(values) - trim]
    mean: Doubles = kept.mean(axis=0, dtype=np.float64)
    return mean
