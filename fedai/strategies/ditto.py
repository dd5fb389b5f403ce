"""Ditto: every site has a model of its own, held near the shared one (Li et al., ICML 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedai.strategies.rule import Rule
from fedai.weights import Layout, layout_of

if TYPE_CHECKING:
    import torch


class Ditto(Rule):
    """FedAvg; beside it each site trains a model of its own, v, whose loss has the term weight/2 |v - w|^2,
    w being the weights that it was sent. v never leaves the site, and is what the site is judged with.
    """

    name: Literal["Ditto"]
    weight: Annotated[float, Field(gt=0, le=100)] = 0.1

    @property
    def personal_weight(self) -> float:
        return self.weight

    def own_layout(self, network: torch.nn.Module) -> Layout:
        return layout_of(network)
