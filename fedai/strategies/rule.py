"""What a strategy is: a study's settings, and what they make of a round. As it stands here it is FedAvg.

A strategy is pure functions over arrays; whatever it must remember from round to round is its `State`, which
is kept beside the checkpoint of the round.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedai.aggregation import Doubles, Gathering, WeightedMean
from fedai.registry import Optimizer
from fedai.weights import Layout, Weights, applied, layout_of
from fedai.yamlfile import Frozen

if TYPE_CHECKING:
    import torch

State = dict[str, Doubles]


class Rule(Frozen):
    """What every strategy answers."""

    def gather(self, layout: Layout, optimizer: Optimizer, folder: Path | None = None) -> Gathering:
        """What updates are folded into. `folder` has room for those that must be held until all are in."""
        return WeightedMean(layout)

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        """The weights after round `number` (from 1), and what to remember."""
        return applied(start, update), state

    @property
    def proximal_weight(self) -> float:
        """How much a site is held back from leaving the weights that it was sent; 0: not at all."""
        return 0.0

    @property
    def least_answers(self) -> int:
        """Without so many answers the strategy has no meaning; a study's quorum must be that many."""
        return 1

    def private(self, network: torch.nn.Module) -> frozenset[str]:
        """Names of the parameters and buffers that never leave a site."""
        return frozenset()

    def shared_layout(self, network: torch.nn.Module) -> Layout:
        """The layout of what sites share: all but what is private to each."""
        return layout_of(network, self.private(network))

    def private_layout(self, network: torch.nn.Module) -> Layout:
        """The layout of what each site keeps to itself."""
        return layout_of(network, network.state_dict().keys() - self.private(network))
