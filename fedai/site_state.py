"""What a strategy leaves at a site from round to round, and what is never sent: layers of its own (FedBN,
FedPer, FedRep), a model of its own (Ditto), a control variate (SCAFFOLD), a gradient (FedDyn).

It is kept by round, so that a task that is asked again after a restart starts from what the round before had
left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
ALONE = "alone"  # of the model that the site trained alone
KEPT_ROUNDS = 8  # no question of an earlier round is answered anew


@dataclass(frozen=True)
class SiteState:
    """Of one run at one site: named arrays, by round."""

    folder: Path

    def before(self, number: int) -> Arrays:
        """What training for round `number` (from 1) starts from; nothing where no earlier one left any."""
        earlier = [known for known in self._rounds() if known < number]
        return _read(self._path(max(earlier))) if earlier else {}

    def alone(self) -> Arrays:
        """What belongs to the model that this site trained alone, or nothing."""
        path = self._path(ALONE)
        return _read(path) if path.exists() else {}

    def keep(self, arrays: Arrays, of: int | str) -> None:
        """Write what round `of`, or `ALONE`, has left, whole or not at all; nothing where that is nothing."""
        if not arrays:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path(of).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(self._path(of))
        for old in self._rounds()[:-KEPT_ROUNDS]:
            self._path(old).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem.rpartition("-")[2]) for path in self.folder.glob("private-[0-9]*.npz"))

    def _path(self, of: int | str) -> Path:
        return self.folder / f"private-{of}.npz"


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files}
