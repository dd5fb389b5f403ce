"""FedRep: every site fits a head of its own, then all improve the body (Collins et al., ICML 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedai.strategies.fedper import head_of
from fedai.strategies.rule import Phase, Rule

if TYPE_CHECKING:
    import torch


class FedRep(Rule):
    """The layer that gives the logits never leaves a site, as in FedPer; in each round it alone is trained
    for `head_epochs`, then all the rest for the study's `local_epochs` (Collins et al., ICML 2021).
    """

    name: Literal["FedRep"]
    head_epochs: Annotated[int, Field(ge=1, le=1000)] = 1

    def private(self, network: torch.nn.Module) -> frozenset[str]:
        return head_of(network)

    def phases(self, network: torch.nn.Module, epochs: int) -> tuple[Phase, ...]:
        head = head_of(network)
        body = frozenset(name for name, _ in network.named_parameters()) - head
        return Phase(self.head_epochs, head), Phase(epochs, body)
