"""Coordinate-wise median (Yin et al., ICML 2018). Needs all updates at once: see held.py."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from fedai.registry import Optimizer
from fedai.strategies.held import HeldUpdates, by_columns
from fedai.strategies.rule import Rule
from fedai.weights import Floats, Layout


class Median(Rule):
    """The median of each value over the sites, whatever cases they claim (Yin et al., ICML 2018)."""

    name: Literal["Median"]

    def gather(self, layout: Layout, optimizer: Optimizer, folder: Path | None = None) -> HeldUpdates:
        return HeldUpdates(layout, lambda held: by_columns(held, median), folder)


def median(values: Floats) -> Floats:
    """float32 [sites, width] -> [width]."""
    return np.median(values, axis=0).astype(np.float32)
