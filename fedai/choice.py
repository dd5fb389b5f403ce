"""Which checkpoint of a run is judged, and when its training ends early: by the study's rule, on validation
cases. Test cases have no part in it.

Each round, sites tell of the weights that they received, so what comes with round n is of the checkpoint of
round n - 1. A choice compares checkpoints on the same cases: a site counts that has validated at least half
of them, and a checkpoint competes that every such site has validated. Its value is the mean of the sites',
weighted by validation cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fedai.yamlfile import Frozen

Measure = Literal["validation_loss", "validation_auroc", "validation_dice"]
MEASURE_OF = {"validation_auroc": "classification", "validation_dice": "segmentation"}
LARGEST = 1e15  # what is larger, whatever a site tells, counts as not told
BY_FEW = ("FedBuff", "Cyclic")
OWN_PARTS = ("FedBN", "FedPer", "FedRep", "Ditto")
Facts = Mapping[str, Any]
Problems = list[tuple[tuple[str, ...], str]]


class Checkpoint(Frozen):
    """Which round's model is judged: the last, or the best `by` a measure on the sites' validation cases; the
    earlier one of two that are as good. `by` is what early stopping looks at too.
    """

    choose: Literal["last", "best"] = "last"
    by: Measure = "validation_loss"


class EarlyStopping(Frozen):
    """Training ends when `patience` checkpoints in a row were not better by more than `min_delta`."""

    patience: Annotated[int, Field(ge=1, le=10_000)]
    min_delta: Annotated[float, Field(ge=0, le=1000)] = 0.0


@dataclass(frozen=True)
class Validated:
    """A round's checkpoint on validation cases: by site, its value (NaN: none) and the number of cases."""

    number: int
    told: Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class Compared:
    """`values` of the checkpoints that compete, by round; on `cases` cases of `sites`."""

    values: Mapping[int, float]
    sites: tuple[str, ...]
    cases: int


def misfits(study: Mapping[str, Any]) -> Problems:
    """(place, what is wrong) in a study's raw keys; tolerant of other mistakes."""
    training = _part(study, "training")
    rule, stopping = _part(training, "checkpoint"), _part(training, "early_stopping")
    place, best = ("training", "checkpoint"), rule.get("choose") == "best"
    found: Problems = []
    kind, wanted = _part(study, "task").get("kind") or "classification", MEASURE_OF.get(str(rule.get("by")))
    if wanted not in (None, kind) and kind in MEASURE_OF.values():
        found.append(((*place, "by"), f"{rule['by']} is of a {wanted}"))
    rounds, patience = training.get("rounds"), stopping.get("patience")
    if isinstance(rounds, int) and isinstance(patience, int) and patience + 2 >= rounds:
        text = f"{rounds} rounds are over before {patience} checkpoints could be found no better"
        found.append((("training", "early_stopping", "patience"), text))
    name = _part(study, "strategy").get("name")
    if name in BY_FEW:
        text = f"under {name} each checkpoint is validated by other sites, and can't be compared"
        found += [(place, text)] if best else []
        found += [(("training", "early_stopping"), text)] if stopping else []
    if name in OWN_PARTS and best:
        text = f"under {name} sites keep their own part of the last rounds only: choose last"
        found.append(((*place, "choose"), text))
    return found


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, Mapping) else {}


def value_of(told: Facts, by: Measure) -> float:
    """A site's value of a checkpoint, from what is on record of its validation; NaN where there is none."""
    if by == "validation_loss":
        return _number(told.get("loss"))
    values = [_number(value) for value in told.get(by.removeprefix("validation_"), ())]
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def validations(rounds: Iterable[Facts], last: Facts | None, by: Measure) -> list[Validated]:
    """What is on record of each checkpoint but the first weights, which nobody has trained. `rounds`: each
    with its `number` and its `validation` by site, of the checkpoint before; `last`: the same of the
    checkpoint `number` itself, asked for by itself.
    """
    of = [(int(closed["number"]) - 1, closed.get("validation", {})) for closed in rounds]
    of += [(int(last["number"]), last["validation"])] if last else []
    return [
        Validated(number, {site: (value_of(told, by), int(told["cases"])) for site, told in by_site.items()})
        for number, by_site in of
        if number > 0
    ]


def compared(checkpoints: Sequence[Validated]) -> Compared:
    """The checkpoints that compete, on the cases of the sites that count."""
    known = {one.number: {s: v for s, v in one.told.items() if _is_told(*v)} for one in checkpoints}
    every = sorted({site for told in known.values() for site in told})
    sites = [s for s in every if 2 * sum(s in told for told in known.values()) >= len(known)]
    values = {
        number: _mean([told[site] for site in sites])
        for number, told in sorted(known.items())
        if sites and all(site in told for site in sites)
    }
    cases = max((sum(known[number][site][1] for site in sites) for number in values), default=0)
    return Compared(values, tuple(sites) if values else (), cases)


def _is_told(value: float, cases: int) -> bool:
    return cases > 0 and abs(value) <= LARGEST


def _mean(told: Sequence[tuple[float, int]]) -> float:
    """Weighted by cases; rounded once, so in any order the same."""
    return math.fsum(value * cases for value, cases in told) / sum(cases for _, cases in told)


def _gain(value: float, over: float, by: Measure) -> float:
    return over - value if by == "validation_loss" else value - over


def best_of(values: Mapping[int, float], by: Measure) -> int | None:
    """The round with the best value, the earliest of several; None where none competes."""
    found: int | None = None
    for number, value in sorted(values.items()):
        if found is None or _gain(value, values[found], by) > 0:
            found = number
    return found


def unbeaten(values: Mapping[int, float], by: Measure, rule: EarlyStopping) -> int | None:
    """The round that `patience` later ones were not better than, so that training ends; None: it goes on."""
    leader, waited = None, 0
    for number, value in sorted(values.items()):
        if leader is None or _gain(value, values[leader], by) > rule.min_delta:
            leader, waited = number, 0
        else:
            waited += 1
    return leader if waited >= rule.patience else None


def chosen_of(checkpoints: Sequence[Validated], rule: Checkpoint, last: int) -> dict[str, Any]:
    """What the record says of the choice of the best among the rounds 1 to `last`, with all numbers. Where no
    checkpoint competes it is the last one.
    """
    field = compared(checkpoints)
    best = best_of(field.values, rule.by)
    number = last if best is None else best
    why = "the last: no checkpoint was validated by all sites that count"
    if best is not None:
        why = f"the best of {last} by {rule.by}, {field.values[best]:.4f}"
    return {
        "by": rule.by,
        "is_best": best is not None,
        "round": number,
        "value": field.values.get(number),
        "last": last,
        "last_value": field.values.get(last),
        "values": {str(each): value for each, value in field.values.items()},
        "sites": list(field.sites),
        "cases": field.cases,
        "why": why,
    }


def why_early(leader: int, closed: int, rounds: int, by: Measure) -> str:
    """The reason in one line, of a run that has closed so many of its rounds."""
    return f"stopped early after round {closed} of {rounds}: no better {by} since round {leader}"
