"""What a site computes for a round: the same in an agent at a hospital and for a simulated site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedai.evaluation import case_losses
from fedai.strategies.qfedavg import START_LOSS
from fedai.strategies.rule import Phase, Pull
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.training import Images, Labels, Trained, seed_of, train
from fedai.weights import PARTS, Floats, Layout, Weights, difference, pack, unpack

Arrays = Mapping[str, npt.NDArray[Any]]
MayGoOn = Callable[[], bool]


@dataclass(frozen=True)
class Cases:
    """Of a site's split: images uint8 [N, 1, rows, columns], labels (see fedai.training), and whose they are.

    `spacing`: of masks, mm between rows and between columns, float64 [N, 2].
    """

    images: Images
    labels: Labels
    patients: tuple[str, ...] = ()
    spacing: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))


@dataclass(frozen=True)
class LocalRound:
    """What a site sends (`beside` the update, under the strategy's names), what it keeps, how it went."""

    update: Weights
    beside: Arrays
    kept: Arrays
    trained: Trained


@dataclass(frozen=True)
class SiteModel:
    """A study's network at a site, parted into what sites share and what each has for itself."""

    study: Study
    network: nn.Module
    shared: Layout
    own: Layout
    first: Weights

    @classmethod
    def of(cls, study: Study) -> SiteModel:
        network = build_network(study)
        shared, own = study.strategy.shared_layout(network), study.strategy.own_layout(network)
        return cls(study, network, shared, own, pack(network, own))

    @property
    def keeps_layers(self) -> bool:
        """Whether something of the network never leaves a site."""
        return self.shared != self.own and any(self.own.sizes().values())

    def load(self, given: Weights, kept: Arrays) -> None:
        """Put the weights sent, and the site's own as it kept them, into the network."""
        if self.keeps_layers:
            unpack(self.first, self.network, self.own)
        unpack(given, self.network, self.shared)
        if set(PARTS) <= set(kept):
            unpack(Weights.of(dict(kept)), self.network, self.own)

    def own_arrays(self) -> Arrays:
        """What the network holds now of what is the site's own."""
        return pack(self.network, self.own).arrays() if any(self.own.sizes().values()) else {}


def train_round(
    model: SiteModel,
    given: Weights,
    told: Arrays,
    kept: Arrays,
    cases: Cases,
    *,
    site: str,
    number: int,
    may_go_on: MayGoOn = lambda: True,
) -> LocalRound:
    """Train for round `number` (from 1) as the study's strategy says. Raises TrainingError."""
    strategy = model.study.strategy
    has_own_model = strategy.personal_weight > 0
    model.load(given, {} if has_own_model else kept)
    beside: dict[str, Any] = {}
    if START_LOSS in strategy.sent(model.shared):
        beside[START_LOSS] = np.array([_mean_loss(model.network, cases, may_go_on)])
    bend = _bend(model.network, model.shared, given, strategy.pull(told, kept))
    phases = strategy.phases(model.network, model.study.training.local_epochs)
    trained = _train(model, cases, phases, bend, ("train", number), site, number, may_go_on)
    update = difference(pack(model.network, model.shared), given)
    sent, stays = strategy.leave(told, kept, update.parameters, trained.travel)
    if has_own_model:
        _train_own(model, given, kept, cases, site, number, may_go_on)
    return LocalRound(update, {**beside, **sent}, {**stays, **model.own_arrays()}, trained)


def _train_own(
    model: SiteModel, given: Weights, kept: Arrays, cases: Cases, site: str, number: int, may_go_on: MayGoOn
) -> None:
    """The site's own model, held near the weights sent."""
    model.load(given, kept)
    pull = Pull(toward=model.study.strategy.personal_weight)
    bend = _bend(model.network, model.shared, given, pull)
    phases = (Phase(model.study.training.local_epochs),)
    _train(model, cases, phases, bend, ("own", number), site, number, may_go_on)


def _train(
    model: SiteModel,
    cases: Cases,
    phases: tuple[Phase, ...],
    bend: Callable[[], None],
    what: tuple[object, ...],
    site: str,
    number: int,
    may_go_on: MayGoOn,
) -> Trained:
    """Phase after phase; the loss is that of the last, steps and way are those of all."""
    training, steps, travel = model.study.training, 0, 0.0
    for place, phase in enumerate(phases):
        later = (place,) if place else ()
        with _only(model.network, phase.only):
            done = train(
                model.network,
                cases.images,
                cases.labels,
                training,
                classes=model.study.task.outputs,
                epochs=phase.epochs,
                before=max(0, number - 1) * training.local_epochs,
                seed=seed_of(training.seed, site, *what, *later),
                bend=bend,
                may_go_on=may_go_on,
            )
        steps, travel = steps + done.steps, travel + done.travel
    return replace(done, steps=steps, travel=travel)


@contextmanager
def _only(network: nn.Module, names: frozenset[str] | None) -> Iterator[None]:
    """Leave all other parameters as they are meanwhile."""
    still = [
        parameter
        for name, parameter in network.named_parameters()
        if names is not None and name not in names and parameter.requires_grad
    ]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def _mean_loss(network: nn.Module, cases: Cases, may_go_on: MayGoOn) -> float:
    return float(case_losses(network, cases.images, cases.labels, may_go_on=may_go_on).mean())


def _bend(network: nn.Module, layout: Layout, given: Weights, pull: Pull) -> Callable[[], None]:
    """Adds the pull to the gradients of the parameters that have one."""
    if pull.offset is None and not pull.toward:
        return lambda: None
    named, starts = dict(network.named_parameters()), _pieces(layout, given.parameters)
    offsets = {} if pull.offset is None else _pieces(layout, pull.offset)

    def bend() -> None:
        for name, start in starts.items():
            now = named[name]
            if now.grad is not None:
                if pull.toward:
                    now.grad.add_(now.detach() - start.to(now.device), alpha=pull.toward)
                if name in offsets:
                    now.grad.add_(offsets[name].to(now.device))

    return bend


def _pieces(layout: Layout, flat: Floats) -> dict[str, torch.Tensor]:
    """Each parameter's part of float32 [P]."""
    ends = np.cumsum([0, *(entry.size for entry in layout.parameters)]).tolist()
    return {
        entry.name: torch.from_numpy(flat[start : start + entry.size].copy()).reshape(entry.shape)
        for entry, start in zip(layout.parameters, ends, strict=False)
    }
