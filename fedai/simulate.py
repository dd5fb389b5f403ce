"""A study's rounds in one process, without a server: over homes on this machine, or any number of invented
sites.

Sites compute with the functions that agents use (fedai.local), and their updates are folded as in a run
(fedai.strategies), so the same seeds give the same weights to the bit. So do several worker processes, since
sums are exact in any order. A site is visited and let go again: memory doesn't grow with their number.
"""

from __future__ import annotations

import functools
import multiprocessing
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedai.choice import best_of, chosen_of, compared, unbeaten, validations, why_early
from fedai.evaluation import outline, predict
from fedai.local import Cases, LocalRound, SiteModel, train_round
from fedai.outline_score import OutlineScore
from fedai.outlines import measure
from fedai.score import Score
from fedai.selection import select
from fedai.site_state import SiteState
from fedai.strategies import Conditions, State
from fedai.study import Segmentation, Study, Training
from fedai.validation import validate, validation_facts
from fedai.weights import Layout, Weights, pack
from fedai.wire import MINIMUM_CELL

Arrays = Mapping[str, npt.NDArray[Any]]
Facts = Mapping[str, Any]


class Site(Protocol):
    """A hospital as a simulation sees it."""

    @property
    def name(self) -> str: ...
    def cases(self, split: str) -> Cases: ...
    def may_go_on(self) -> bool: ...
    def told_training_cases(self) -> int:
        """As many as it would tell a server of."""
        ...


@dataclass(frozen=True)
class RoundClosed:
    """A round of a simulation: mean training loss over all cases, seconds."""

    number: int
    sites: int
    train_loss: float
    seconds: float


@dataclass(frozen=True)
class Simulated:
    """What came of it: the weights that were judged (the study's choice, else the last round's), the rounds,
    and each site's score on its own test cases. `chosen`: what `fedai.choice` says, or nothing.
    """

    layout: Layout
    weights: Weights
    last: Weights
    rounds: tuple[RoundClosed, ...]
    scores: Mapping[str, npt.NDArray[np.float64]]  # by site: AUROC, float64 [K], or mean Dice by structure
    pooled: Score | OutlineScore
    chosen: Mapping[str, Any]
    reason: str


@dataclass
class Visitor:
    """Does at a site what its agent would. `folder` keeps what a strategy leaves at sites."""

    study: Study
    sites: Mapping[str, Site]
    folder: Path
    model: SiteModel = field(init=False)

    def __post_init__(self) -> None:
        self.model = SiteModel.of(self.study)

    def sizes(self) -> dict[str, int]:
        """Training cases by site, in the study's order; where no draw looks at them, none are looked up."""
        here = [name for name in self.study.sites if name in self.sites]
        if self.study.rounds.selection.by != "size":
            return dict.fromkeys(here, 1)
        return {name: self.sites[name].told_training_cases() for name in here}

    def train(self, job: tuple[str, int, Weights, Arrays]) -> tuple[str, LocalRound, Facts]:
        name, number, weights, told = job
        site, state = self.sites[name], SiteState(self.folder / name)
        validation: Facts = {}
        if self.study.training.looks_at_validation:
            validation = self.validate((name, number, weights))[1]
        done = train_round(
            self.model,
            weights,
            told,
            state.before(number),
            site.cases("train"),
            site=name,
            number=number,
            may_go_on=site.may_go_on,
        )
        state.keep(done.kept, number)
        return name, replace(done, kept={}), validation

    def validate(self, job: tuple[str, int, Weights]) -> tuple[str, Facts]:
        """What the record would say of weights that are sent in round `number`."""
        name, number, weights = job
        self.model.load(weights, SiteState(self.folder / name).before(number))
        cases, may_go_on = self.sites[name].cases("validation"), self.sites[name].may_go_on
        facts = cases, self.study, MINIMUM_CELL
        return name, validation_facts(*validate(self.model.network, *facts, may_go_on=may_go_on))

    def score(self, job: tuple[str, Weights]) -> tuple[str, Score | OutlineScore]:
        name, weights = job
        self.model.load(weights, SiteState(self.folder / name).before(self.study.training.rounds + 1))
        cases, may_go_on, task = self.sites[name].cases("test"), self.sites[name].may_go_on, self.study.task
        if isinstance(task, Segmentation):
            masks = cases.labels.astype(np.uint8, copy=False)
            outlines, _ = outline(self.model.network, cases.images, masks, may_go_on=may_go_on)
            found = measure(masks, outlines, len(task.structures), cases.spacing, task.tolerance_mm)
            return name, OutlineScore.of(*found, cases.patients)
        scores = predict(self.model.network, cases.images, may_go_on=may_go_on)
        thresholds = (self.study.judgement.threshold, self.study.judgement.net_benefit_at)
        return name, Score.of(scores, cases.labels, cases.patients, *thresholds)


@dataclass
class Course:
    """How far a simulation has come, to the study's rule on validation cases. Holds the best weights alone:
    every site answers in every round, so no checkpoint that was passed over is chosen later.
    """

    training: Training
    rounds: list[Facts] = field(default_factory=list)
    kept: dict[int, Weights] = field(default_factory=dict)
    reason: str = ""

    def note(self, number: int, before: Weights, validation: Facts) -> None:
        """Round `number` has closed; sites said this of the weights that it began with."""
        if not self.training.looks_at_validation:
            return
        rule, by = self.training.early_stopping, self.training.checkpoint.by
        self.rounds.append({"number": number, "validation": validation})
        self.kept[number - 1] = before
        values = compared(validations(self.rounds, None, by)).values
        best = best_of(values, by)
        self.kept = {n: weights for n, weights in self.kept.items() if n == best}
        leader = unbeaten(values, by, rule) if rule else None
        if leader is not None and number < self.training.rounds:
            self.reason = why_early(leader, number, self.training.rounds, by)

    def choose(self, last: Weights, validate: Callable[[], Facts]) -> tuple[Facts, Weights]:
        """What the study's rule chooses, and its weights. `validate` tells of the last ones."""
        if not self.training.chooses_best:
            return {}, last
        rule, number = self.training.checkpoint, len(self.rounds)
        fact = {"number": number, "validation": validate()}
        chosen = chosen_of(validations(self.rounds, fact, rule.by), rule, number)
        return chosen, {**self.kept, number: last}[chosen["round"]]


Tamper = Callable[[str, Weights], Weights]
Map = Callable[[str, Iterable[Any]], Iterator[Any]]


def simulate(
    study: Study,
    sites: Sequence[Site],
    folder: Path,
    *,
    workers: int = 1,
    tamper: Tamper = lambda site, update: update,
    tell: Callable[[RoundClosed], None] = lambda closed: None,
) -> Simulated:
    """All rounds of the study over `sites`, then its model on their test cases.

    `folder` is for what strategies keep at sites. `workers`: processes; more than one needs sites that can be
    pickled. `tamper` may change what a site sends. Raises TrainingError, DataError, FederationError.
    """
    visitor = Visitor(study, {site.name: site for site in sites}, folder)
    with _working(visitor, workers) as do:
        weights = pack(visitor.model.network, visitor.model.shared)
        state: State = {}
        rounds, course, sizes = list[RoundClosed](), Course(study.training), visitor.sizes()
        for number in range(1, study.training.rounds + 1):
            if course.reason:
                break
            before = weights
            weights, state, closed, validation = _close(visitor, do, number, weights, state, tamper, sizes)
            course.note(number, before, validation)
            rounds.append(closed)
            tell(closed)
        chosen, judged = course.choose(weights, lambda: _validate(visitor, do, len(rounds) + 1, weights))
        scores = do("score", ((site.name, judged) for site in sites))
        by_site, pooled = _judge(scores)
    facts = visitor.model.shared, judged, weights, tuple(rounds), by_site, pooled
    return Simulated(*facts, chosen, course.reason)


def _validate(visitor: Visitor, do: Map, number: int, weights: Weights) -> Facts:
    return dict(do("validate", ((name, number, weights) for name in visitor.sites)))


def _close(
    visitor: Visitor,
    do: Map,
    number: int,
    weights: Weights,
    state: State,
    tamper: Tamper,
    sizes: Mapping[str, int],
) -> tuple[Weights, State, RoundClosed, Facts]:
    """One round, as a run closes it: a group that takes its turn, updates folded as they come, a step."""
    started, study, layout = time.monotonic(), visitor.study, visitor.model.shared
    rules, seed = study.rounds, study.training.seed
    drawn = select(rules.selection, sizes, seed=seed, number=number, quorum=rules.quorum)
    group = study.strategy.turns(drawn, number)[0]
    updates = study.strategy.gather(Conditions(layout, study.training.optimizer, len(sizes)))
    told, loss, validation = study.strategy.tell(state, layout), 0.0, dict[str, Any]()
    for name, done, validation[name] in do("train", ((name, number, weights, told) for name in group)):
        trained = done.trained
        updates.add(name, tamper(name, done.update), trained.cases, trained.steps, done.beside)
        loss += trained.loss * trained.cases
    weights, state = study.strategy.step(weights, updates.update(), {**state, **updates.noted()}, number)
    closed = RoundClosed(number, len(group), loss / updates.cases, time.monotonic() - started)
    return weights, state, closed, validation


def headline(score: Score | OutlineScore) -> npt.NDArray[np.float64]:
    """AUROC [K], or mean Dice by structure."""
    return score.histogram.auroc() if isinstance(score, Score) else score.means[:, 0]


def _judge(scores: Iterable[tuple[str, Any]]) -> tuple[dict[str, npt.NDArray[np.float64]], Any]:
    """The headline of each site, and all scores together; added up as they come."""
    by_site: dict[str, npt.NDArray[np.float64]] = {}

    def noted() -> Iterator[Any]:
        for name, score in scores:
            by_site[name] = headline(score)
            yield score

    pooled = functools.reduce(operator.add, noted())
    return by_site, pooled


@contextmanager
def _working(visitor: Visitor, workers: int) -> Iterator[Map]:
    """A map over jobs by the name of the visitor's method: in this process, or in several."""
    if workers == 1:
        yield lambda what, jobs: map(getattr(visitor, what), jobs)
        return
    import torch

    facts = (visitor.study, dict(visitor.sites), visitor.folder, torch.get_num_threads())
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_begin, initargs=facts) as pool:
        yield lambda what, jobs: pool.imap_unordered(_do, ((what, job) for job in jobs))


_visitors: list[Visitor] = []  # of a worker process: its only one


def _begin(study: Study, sites: Mapping[str, Site], folder: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)  # as many as without workers: sums come out the same to the bit
    _visitors.append(Visitor(study, sites, folder))


def _do(job: tuple[str, Any]) -> Any:
    what, facts = job
    return getattr(_visitors[0], what)(facts)
