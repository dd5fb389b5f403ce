"""Sites that lie: each sends, or learns from, something else than an honest one would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedai.local import Cases
from fedai.simulate import Site, Tamper
from fedai.weights import Weights

SCALE = 20.0


@dataclass(frozen=True)
class LabelFlipper:
    """A site that trains on the other class's labels; its test cases are as they are."""

    honest: Site
    classes: int

    @property
    def name(self) -> str:
        return self.honest.name

    def cases(self, split: str) -> Cases:
        found = self.honest.cases(split)
        if split != "train":
            return found
        return Cases(found.images, self.classes - 1 - found.labels, found.patients)

    def may_go_on(self) -> bool:
        return True


def multiplying(liars: Sequence[str], factor: float) -> Tamper:
    """These sites send their update times `factor`."""

    def tamper(site: str, update: Weights) -> Weights:
        if site not in liars:
            return update
        return Weights(np.float32(factor) * update.parameters, update.buffers, update.counters)

    return tamper


Attack = Callable[[Sequence[Site], Sequence[str], int], tuple[Sequence[Site], Tamper]]


def nobody(sites: Sequence[Site], liars: Sequence[str], classes: int) -> tuple[Sequence[Site], Tamper]:
    return sites, multiplying((), 1)


def flip_signs(sites: Sequence[Site], liars: Sequence[str], classes: int) -> tuple[Sequence[Site], Tamper]:
    return sites, multiplying(liars, -SCALE / 4)


def scale(sites: Sequence[Site], liars: Sequence[str], classes: int) -> tuple[Sequence[Site], Tamper]:
    return sites, multiplying(liars, SCALE)


def flip_labels(sites: Sequence[Site], liars: Sequence[str], classes: int) -> tuple[Sequence[Site], Tamper]:
    lying = [LabelFlipper(site, classes) if site.name in liars else site for site in sites]
    return lying, multiplying((), 1)


ATTACKS: dict[str, Attack] = {
    "none": nobody,
    "sign-flipping": flip_signs,
    "scaling": scale,
    "label-flipping": flip_labels,
}
