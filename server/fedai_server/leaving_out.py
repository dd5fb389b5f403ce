"""Runs that leave a site out of the training and have it judge the model: what a further hospital would see.

The study is the one that all have approved. The site answers that it is ready, scores the model and links it;
no weights are trained there. One such run for each site gives the leave-one-site-out rows of `fedai run
matrix`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedai.errors import ConfigError, FederationError
from fedai.study import Study
from fedai_server.rounds import Asked, absent_of
from fedai_server.runs import RunDatabase

if TYPE_CHECKING:
    import torch

FACT = "without"


def facts_of(without: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """What a run has to know, before it begins, of which sites only judge."""
    return [(FACT, {"sites": sorted(without)})] if without else []


def without_of(runs: RunDatabase, run: str) -> frozenset[str]:
    """The sites of a run that only judge; of most runs none."""
    return frozenset(site for _, _, fact in runs.facts(run, FACT) for site in fact["sites"])


def check_sites(without: Sequence[str], study: Study) -> None:
    """Raise ConfigError where a study can't be trained without these sites."""
    strangers = sorted(set(without) - set(study.sites))
    left, least = len(set(study.sites) - set(without)), max(1, study.strategy.least_answers)
    if strangers:
        raise ConfigError(
            f"--without {', '.join(strangers)}: the study doesn't name it",
            hint=f"its sites: {', '.join(study.sites)}",
        )
    if left < least:
        raise ConfigError(f"--without leaves {left} sites to train; {study.strategy.name} needs {least}")


def check_without(without: frozenset[str], study: Study, network: torch.nn.Module) -> None:
    """Raise ConfigError where each site trains something of its own: a site that doesn't train has none."""
    strategy = study.strategy
    shared, own = strategy.shared_layout(network), strategy.own_layout(network)
    if strategy.personal_weight or (own != shared and any(own.sizes().values())):
        raise ConfigError(
            f"{strategy.name} leaves a part of the model at each site, and {', '.join(sorted(without))} "
            "would have none to judge with",
            hint="leave sites out under a strategy that shares the whole model",
        )


def check_judges(without: frozenset[str], asked: Asked) -> None:
    """Raise FederationError where a site that is to judge isn't ready: the run would be for nothing."""
    away = {site: why for site, why in absent_of(asked).items() if site in without}
    if away:
        who = ", ".join(f"{site} ({why})" for site, why in sorted(away.items()))
        raise FederationError(
            f"not ready, though the run is to be judged there: {who}",
            hint="ask the site's engineer what its log says under the reference, then start it again",
        )
