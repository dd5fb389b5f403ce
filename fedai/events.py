"""What happens in a run, as facts without behaviour: for whoever follows one (`fedai run follow`).

The server writes facts into its run database (JSON); `event_of` reads one. Nothing here is new: an event
tells what `fedai run show` and the record tell, as it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fedai.outline_results import OutlineComparison, StructureResult
from fedai.results import Comparison

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SiteReady:
    """A site takes part: its cases by split, and the versions that it runs."""

    run: str
    site: str
    cases: Mapping[str, int]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A round closed. `numbers`: site -> what it told of its part: cases, train_loss, validation_loss,
    validation_auroc (the mean over classes that have one) or validation_dice (over structures). The
    validation is that of the weights of the round before.
    """

    run: str
    number: int
    seconds: float
    answered: tuple[str, ...]
    late: tuple[str, ...]
    refused: tuple[str, ...]
    numbers: Mapping[str, Numbers]


@dataclass(frozen=True, slots=True)
class CheckpointChosen:
    """Which round's model is judged, and by which measure; its value, NaN where none could be compared."""

    run: str
    round: int
    by: str
    value: float


@dataclass(frozen=True, slots=True)
class ModelScored:
    """The sites have scored a model on their test cases."""

    run: str
    model: str
    answered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement is there. `numbers`: model -> site, or `all` -> auroc, brier, cases; of a segmentation
    dice_NAME of each structure, and over how many cases, cases_NAME.
    """

    run: str
    numbers: Mapping[str, Mapping[str, Numbers]]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, for whatever reason."""

    run: str
    state: str
    reason: str
    seconds: float


Event = SiteReady | RoundClosed | CheckpointChosen | ModelScored | Judged | RunEnded
ALL = "all"


class Listener(Protocol):
    """Who is told of events, in their order."""

    def hear(self, event: Event) -> None: ...
    def close(self) -> None: ...


def event_of(run: str, kind: str, fact: Mapping[str, Any]) -> Event | None:
    """The event of a fact of the run database; None for one that is for the record alone."""
    return READERS[kind](run, fact) if kind in READERS else None


def _site_ready(run: str, fact: Mapping[str, Any]) -> Event:
    cases = {split: int(found["cases"]) for split, found in fact["cohort"]["splits"].items()}
    return SiteReady(run, fact["site"], cases, dict(fact["versions"]))


def _round_closed(run: str, fact: Mapping[str, Any]) -> Event:
    answered, late, refused = (tuple(fact[key]) for key in ("answered", "late", "refused"))
    numbers = {site: _numbers(fact, site) for site in answered if site in fact.get("cases", {})}
    return RoundClosed(run, int(fact["number"]), float(fact["seconds"]), answered, late, refused, numbers)


def _numbers(fact: Mapping[str, Any], site: str) -> Numbers:
    validation = fact["validation"][site]
    told = {
        "cases": fact["cases"][site],
        "train_loss": fact["train_loss"][site],
        "validation_loss": validation["loss"],
        **{f"validation_{name}": _mean(validation.get(name, ())) for name in ("auroc", "dice")},
    }
    return _known(told)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _known(told: Mapping[str, float | None]) -> Numbers:
    return {name: float(value) for name, value in told.items() if value is not None}


def _model_scored(run: str, fact: Mapping[str, Any]) -> Event:
    return ModelScored(run, fact["model"], tuple(fact["answered"]))


def _chosen(run: str, fact: Mapping[str, Any]) -> Event:
    value = fact["value"]
    return CheckpointChosen(run, int(fact["round"]), fact["by"], float("nan") if value is None else value)


READERS: dict[str, Callable[[str, Mapping[str, Any]], Event]] = {
    "site_ready": _site_ready,
    "round_closed": _round_closed,
    "checkpoint_chosen": _chosen,
    "model_scored": _model_scored,
}


def judged(run: str, comparison: Comparison) -> Judged:
    """The event of a judgement that was compared."""
    numbers = {
        model.name: {
            place: _known({"auroc": found.auroc.value, "brier": found.brier.value, "cases": found.cases})
            for place, found in ((ALL, model.pooled), *model.sites.items())
        }
        for model in comparison.models
    }
    return Judged(run, numbers)


def outlines_judged(run: str, comparison: OutlineComparison) -> Judged:
    """The same of a segmentation's."""
    numbers = {
        model.name: {
            place: {name: value for one in found for name, value in _of_structure(one).items()}
            for place, found in ((ALL, model.pooled), *model.sites.items())
        }
        for model in comparison.models
    }
    return Judged(run, numbers)


def _of_structure(found: StructureResult) -> Numbers:
    told = {f"dice_{found.name}": found.means["dice"].value, f"cases_{found.name}": found.cases["dice"]}
    return _known(told)
