"""FedBN: every site keeps its own normalization layers (Li et al., ICLR 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedai.strategies.rule import Rule

if TYPE_CHECKING:
    import torch


class FedBN(Rule):
    """FedAvg of everything but normalization layers, which never leave a site: neither their weights nor
    their running statistics (Li et al., ICLR 2021).
    """

    name: Literal["FedBN"]

    def private(self, network: torch.nn.Module) -> frozenset[str]:
        from torch.nn import GroupNorm, LayerNorm
        from torch.nn.modules.batchnorm import _NormBase

        kinds = _NormBase | GroupNorm | LayerNorm
        layers = [name for name, module in network.named_modules() if isinstance(module, kinds)]
        return frozenset(name for name in network.state_dict() if name.rpartition(".")[0] in layers)
