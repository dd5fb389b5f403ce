"""Which of a run's sites train in a round: drawn from the study's seed and the round's number, so that
whoever draws again draws the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from fedai.yamlfile import Frozen

DRAWN = ("random", "size")
SMALLEST = 2.0**-64
NOT_DRAWN = {
    "FedBuff": "FedBuff asks whoever is free",
    "Cyclic": "Cyclic has an order of its own",
}
Problems = list[tuple[tuple[str, ...], str]]


class Selection(Frozen):
    """Who trains in a round: `all`; or so many, or such a `fraction` (rounded up) of the run's sites, drawn
    without regard to anything (`random`), or one after the other with a probability proportional to their
    training cases (`size`). Never fewer than the quorum.
    """

    by: Literal["all", "random", "size"] = "all"
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    number: Annotated[int, Field(ge=1, le=1000)] | None = None

    @property
    def words(self) -> str:
        """Who trains in a round."""
        if self.by == "all":
            return "all sites"
        many = f"{self.number}" if self.number is not None else f"{self.fraction:g} of the"
        return f"{many} sites drawn {'at random' if self.by == 'random' else 'by training cases'}"


def wanted_of(rule: Selection, sites: int) -> int:
    """How many of so many sites the rule asks for."""
    part = sites if rule.fraction is None else math.ceil(round(rule.fraction * sites, 9))
    return part if rule.number is None else rule.number


def select(
    rule: Selection, cases: Mapping[str, int], *, seed: int, number: int, quorum: int
) -> tuple[str, ...]:
    """The sites that train in round `number` (from 1). `cases`: each site's training cases; its order is the
    result's, and changes nothing else.

    The smallest of -log(u) / weight, u being a site's own draw (Efraimidis and Spirakis 2006).
    """
    from fedai.training import seed_of

    if rule.by == "all":
        return tuple(cases)

    def rank(site: str) -> tuple[float, str]:
        weight = cases[site] if rule.by == "size" else 1
        drawn = max(seed_of(seed, "selection", number, site) / 2**63, SMALLEST)
        return (-math.log(drawn) / weight if weight > 0 else math.inf, site)

    chosen = set(sorted(cases, key=rank)[: max(wanted_of(rule, len(cases)), quorum)])
    return tuple(site for site in cases if site in chosen)


def misfits(study: Mapping[str, Any]) -> Problems:
    """(place, what is wrong) in a study's raw keys; tolerant of other mistakes."""
    rounds, training = _part(study, "rounds"), _part(study, "training")
    raw, place = _part(rounds, "selection"), ("rounds", "selection")
    by, said = raw.get("by", "all"), [key for key in ("fraction", "number") if raw.get(key) is not None]
    if by not in DRAWN:
        return [(place, f"all sites are asked: {' and '.join(said)} would mean nothing")] if said else []
    found: Problems = [] if len(said) == 1 else [(place, "say how many are drawn: fraction, or number")]
    name = _part(study, "strategy").get("name")
    found += [((*place, "by"), f"no sites can be drawn: {NOT_DRAWN[name]}")] if name in NOT_DRAWN else []
    is_best = _part(training, "checkpoint").get("choose") == "best"
    if is_best or training.get("early_stopping"):
        what = "choose: best" if is_best else "early_stopping"
        text = f"each checkpoint would be validated by other sites, and training has {what}"
        found.append(((*place, "by"), text))
    for key in said:
        found += _misfits_of_number(raw, key, study.get("sites"), rounds.get("quorum"))
    return found


def _misfits_of_number(raw: Mapping[str, Any], key: str, sites: Any, quorum: Any) -> Problems:
    if not isinstance(sites, list | tuple) or not isinstance(raw[key], int | float) or raw[key] <= 0:
        return []
    wanted = wanted_of(Selection.model_construct(**{key: raw[key]}), len(sites))
    place = ("rounds", "selection", key)
    if wanted > len(sites):
        return [(place, f"{wanted} are to be drawn, but only {len(sites)} sites are named")]
    if isinstance(quorum, int) and wanted < quorum <= len(sites):
        return [(place, f"{wanted} of {len(sites)} sites are drawn, fewer than the quorum, {quorum}")]
    return []


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, Mapping) else {}
