"""FedProx: sites are held near the weights that they were sent (Li et al., MLSys 2020).

The server does as in FedAvg; a site adds mu/2 times the squared distance from those weights to its loss.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedai.strategies.rule import Arrays, Pull, Rule


class FedProx(Rule):
    """`mu`: weight of the proximal term in each site's loss (Li et al., MLSys 2020)."""

    name: Literal["FedProx"]
    mu: Annotated[float, Field(gt=0, le=100)] = 0.01

    def pull(self, told: Arrays, kept: Arrays) -> Pull:
        return Pull(toward=self.mu)
