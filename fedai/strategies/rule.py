"""What a strategy is: a study's settings, and what they make of a round. As it stands here it is FedAvg.

A strategy is pure functions over arrays. What the server must remember from round to round is its `State`,
kept beside the checkpoint of the round; what a site must remember is kept at the site (fedai.site_state).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fedai.aggregation import Doubles, Gathering, WeightedMean
from fedai.registry import AdamW, Optimizer
from fedai.weights import Floats, Layout, Weights, applied, layout_of
from fedai.yamlfile import Frozen

if TYPE_CHECKING:
    import torch

State = dict[str, Doubles]
Arrays = Mapping[str, npt.NDArray[Any]]
ArrayForms = dict[str, tuple[str, tuple[int, ...]]]
"""Of named arrays: dtype and shape."""


@dataclass(frozen=True)
class Conditions:
    """What a round is gathered under: `sites` take part in the run, whether or not they answer; `folder` has
    room for updates that must be held until all are in.
    """

    layout: Layout
    optimizer: Optimizer = field(default_factory=AdamW)
    sites: int = 1
    folder: Path | None = None


@dataclass(frozen=True)
class Pull:
    """What is added to the gradient of a site's loss: `offset` (float32 [P], in the order of the layout) and
    `toward` times the way from the weights that the site was sent to those of now.
    """

    offset: Floats | None = None
    toward: float = 0.0


@dataclass(frozen=True)
class Phase:
    """Epochs in which only these parameters are trained; None: all."""

    epochs: int
    only: frozenset[str] | None = None


class Rule(Frozen):
    """What every strategy answers."""

    # at the server

    def gather(self, conditions: Conditions) -> Gathering:
        """What updates are folded into."""
        return WeightedMean(conditions.layout)

    def step(self, start: Weights, update: Weights, state: State, number: int) -> tuple[Weights, State]:
        """The weights after round `number` (from 1), and what to remember. `state`: what was remembered, and
        what the gathering has noted beside the update.
        """
        return applied(start, update), state

    def tell(self, state: State, layout: Layout) -> Arrays:
        """What sites are sent beside the weights; of the form that `told` gives."""
        return {}

    def turns(self, sites: tuple[str, ...], number: int) -> list[tuple[str, ...]]:
        """Who is asked in round `number` (from 1); the next group where none of the one before answers."""
        return [sites]

    @property
    def least_answers(self) -> int:
        """Without so many answers the strategy has no meaning; a study's quorum must be that many."""
        return 1

    def misfit(self, optimizer: Optimizer) -> str:
        """Why the strategy has no meaning with the sites' optimizer, or nothing."""
        return ""

    def clash(self, quorum: int, sites: int) -> str:
        """Why rounds of a study with this quorum and so many sites can't close, or nothing."""
        return ""

    # what crosses beside weights and updates

    def told(self, layout: Layout) -> ArrayForms:
        """Arrays that a task to train holds beside the weights."""
        return {}

    def sent(self, layout: Layout) -> ArrayForms:
        """Arrays that a site sends beside its update."""
        return {}

    # at a site

    def pull(self, told: Arrays, kept: Arrays) -> Pull:
        """What bends the site's training, from what it was told and what it kept of the round before."""
        return Pull()

    def leave(self, told: Arrays, kept: Arrays, update: Floats, travel: float) -> tuple[Arrays, Arrays]:
        """What a site sends beside its update, and what it keeps. `update`: float32 [P]; `travel`: the sum of
        its steps' learning rates.
        """
        return {}, {}

    def phases(self, network: torch.nn.Module, epochs: int) -> tuple[Phase, ...]:
        """What a site trains one after the other."""
        return (Phase(epochs),)

    @property
    def personal_weight(self) -> float:
        """How much a site's own model is held near the shared one; 0: a site has none."""
        return 0.0

    def private(self, network: torch.nn.Module) -> frozenset[str]:
        """Names of the parameters and buffers that never leave a site."""
        return frozenset()

    def shared_layout(self, network: torch.nn.Module) -> Layout:
        """The layout of what sites share: all but what is private to each."""
        return layout_of(network, self.private(network))

    def own_layout(self, network: torch.nn.Module) -> Layout:
        """The layout of what each site has for itself."""
        return layout_of(network, network.state_dict().keys() - self.private(network))
