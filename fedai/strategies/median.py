"""Coordinate-wise median (Yin et al., ICML 2018). Needs all updates at once: see held.py."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedai.strategies.held import HeldUpdates, by_columns
from fedai.strategies.rule import Conditions, Rule
from fedai.weights import Floats


class Median(Rule):
    """The median of each value over the sites, whatever cases they claim (Yin et al., ICML 2018)."""

    name: Literal["Median"]

    def gather(self, conditions: Conditions) -> HeldUpdates:
        return HeldUpdates(conditions.layout, lambda held: by_columns(held, median), conditions.folder)


def median(values: Floats) -> Floats:
    """float32 [sites, width] -> [width]."""
    return np.median(values, axis=0).astype(np.float32)
