"""FedAvg: the mean of updates, weighted by training cases (McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from typing import Literal

from fedai.strategies.rule import Rule


class FedAvg(Rule):
    """Weighted mean of updates by training cases (McMahan et al., AISTATS 2017)."""

    name: Literal["FedAvg"] = "FedAvg"
