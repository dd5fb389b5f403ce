"""FedPer: every site keeps its own last layer (Arivazhagan et al., arXiv:1912.00818)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedai.strategies.rule import Rule

if TYPE_CHECKING:
    import torch


class FedPer(Rule):
    """FedAvg of everything but the layer that gives the logits, which never leaves a site."""

    name: Literal["FedPer"]

    def private(self, network: torch.nn.Module) -> frozenset[str]:
        return head_of(network)


def head_of(network: torch.nn.Module) -> frozenset[str]:
    """Names of weight and bias of the layer that gives the logits."""
    *_, (last, _) = network.named_parameters()
    head = last.rpartition(".")[0]
    return frozenset(name for name in network.state_dict() if name.rpartition(".")[0] == head)
