"""What happens in a run, as facts without behaviour: for whoever follows one (`fedai run follow`).

The server writes facts into its run database (JSON); `event_of` reads one. Nothing here is new: an event
tells what `fedai run show` and the record tell, as it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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
    validation_auroc (the mean over classes that have one). The validation is that of the weights of the round
    before.
    """

    run: str
    number: int
    seconds: float
    answered: tuple[str, ...]
    late: tuple[str, ...]
    refused: tuple[str, ...]
    numbers: Mapping[str, Numbers]


@dataclass(frozen=True, slots=True)
class ModelScored:
    """The sites have scored a model on their test cases."""

    run: str
    model: str
    answered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement is there. `numbers`: model -> site, or `all` -> auroc, brier, cases."""

    run: str
    numbers: Mapping[str, Mapping[str, Numbers]]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, for whatever reason."""

    run: str
    state: str
    reason: str
    seconds: float


Event = SiteReady | RoundClosed | ModelScored | Judged | RunEnded
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
    aurocs = [value for value in validation["auroc"] if value is not None]
    told = {
        "cases": fact["cases"][site],
        "train_loss": fact["train_loss"][site],
        "validation_loss": validation["loss"],
        "validation_auroc": sum(aurocs) / len(aurocs) if aurocs else None,
    }
    return {name: float(value) for name, value in told.items() if value is not None}


def _model_scored(run: str, fact: Mapping[str, Any]) -> Event:
    return ModelScored(run, fact["model"], tuple(fact["answered"]))


READERS: dict[str, Callable[[str, Mapping[str, Any]], Event]] = {
    "site_ready": _site_ready,
    "round_closed": _round_closed,
    "model_scored": _model_scored,
}


def judged(run: str, comparison: Comparison) -> Judged:
    """The event of a judgement that was compared."""
    numbers = {
        model.name: {
            place: {
                name: float(value)
                for name, value in (
                    ("auroc", result.auroc.value),
                    ("brier", result.brier.value),
                    ("cases", result.cases),
                )
                if value is not None
            }
            for place, result in ((ALL, model.pooled), *model.sites.items())
        }
        for model in comparison.models
    }
    return Judged(run, numbers)
