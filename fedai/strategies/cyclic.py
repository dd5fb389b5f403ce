"""Cyclic weight transfer: the model goes from site to site (Chang et al., JAMIA 2018)."""

from __future__ import annotations

from typing import Literal

from fedai.strategies.rule import Rule


class Cyclic(Rule):
    """One site trains in each round, in the study's order; where it gives no answer the next one does.
    `training.rounds` counts visits, so a study of 3 sites and 9 rounds goes round three times.
    """

    name: Literal["Cyclic"]

    def turns(self, sites: tuple[str, ...], number: int) -> list[tuple[str, ...]]:
        first = (number - 1) % len(sites)
        return [(site,) for site in (*sites[first:], *sites[:first])]
