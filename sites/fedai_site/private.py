"""The layers that a strategy leaves to each site (normalization of FedBN, head of FedPer): kept, never sent.

They change with each round that the site trains, so they are kept by round: a task that is asked again after
a restart starts from what the round before had left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedai.weights import PARTS, Layout, Weights

ALONE = "alone"  # those of the site's own model


@dataclass(frozen=True)
class PrivateLayers:
    """Of one run; `first` are those that the network was built with."""

    folder: Path
    layout: Layout
    first: Weights

    def before(self, number: int) -> Weights:
        """Those that training for round `number` (from 1) starts from."""
        kept = {int(path.stem.rpartition("-")[2]): path for path in self.folder.glob("private-[0-9]*.npz")}
        earlier = [known for known in kept if known < number]
        return self._read(kept[max(earlier)]) if earlier else self.first

    def alone(self) -> Weights:
        """Those of the model that this site trained alone, or the first."""
        path = self._path(ALONE)
        return self._read(path) if path.exists() else self.first

    def keep(self, layers: Weights, of: int | str) -> None:
        """Write those that round `of`, or `ALONE`, has left; whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path(of).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **layers.arrays())
        partial.replace(self._path(of))

    def _path(self, of: int | str) -> Path:
        return self.folder / f"private-{of}.npz"

    def _read(self, path: Path) -> Weights:
        with np.load(path, allow_pickle=False) as kept:
            return Weights.of({part: kept[part] for part in PARTS})
