"""Updates that are held until all are in, for the strategies that compare them with each other.

They lie in one file without a name beside the run, gone with the process, and are read a few columns, or one
update, at a time: memory is that of one update and a block of `BLOCK_VALUES`, however many sites there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fedai.aggregation import NOTHING, Beside, Doubles, check_update
from fedai.errors import FederationError
from fedai.weights import Floats, Integers, Layout, Weights

BLOCK_VALUES = 1 << 21  # float32: 8 MB


@dataclass
class HeldUpdates:
    """`combine` makes one update of all; it meets them in the order of their sites' names."""

    layout: Layout
    combine: Callable[[HeldUpdates], Weights]
    folder: Path | None = None
    least: int = 1
    cases: int = 0
    sites: list[str] = field(default_factory=list)
    _counters: list[Integers] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = self.layout.sizes()
        self._places = {
            "parameters": (0, sizes["parameters"]),
            "buffers": (sizes["parameters"], sizes["buffers"]),
        }
        self._width = sizes["parameters"] + sizes["buffers"]
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  as long as this

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        """Hold one site's update. Raises FederationError where it may not be aggregated."""
        check_update(update, self.layout, cases)
        self._file.seek(4 * self._width * len(self.sites))
        for part in (update.parameters, update.buffers):
            self._file.write(np.ascontiguousarray(part, np.float32).data)
        self._counters.append(update.counters)
        self.cases += cases
        self.sites.append(site)

    def update(self) -> Weights:
        """What `combine` makes of them. Raises FederationError below `least`."""
        if len(self.sites) < self.least:
            raise FederationError(
                f"{len(self.sites)} updates; the strategy needs {self.least}", hint="raise the quorum"
            )
        return self.combine(self)

    def noted(self) -> dict[str, Doubles]:
        return {}

    @property
    def order(self) -> list[int]:
        """Places of the updates by their sites' names."""
        return sorted(range(len(self.sites)), key=self.sites.__getitem__)

    def read(self, place: int) -> Weights:
        """One update, by its place."""
        self._file.flush()
        values = self._values(place, 0, self._width)
        parameters = self._places["parameters"][1]
        return Weights(values[:parameters], values[parameters:], self._counters[place])

    def columns(self, part: str) -> Iterator[tuple[slice, Floats]]:
        """Blocks (where, float32 [sites, width]) of all updates' parameters or buffers."""
        self._file.flush()
        start, size = self._places[part]
        width = max(1, BLOCK_VALUES // max(1, len(self.sites)))
        for place in range(0, size, width):
            where = slice(place, min(place + width, size))
            rows = [self._values(row, start + place, where.stop - place) for row in self.order]
            yield where, np.stack(rows)

    def middle_counters(self) -> Integers:
        """The median of the counters, the lower one of two."""
        middle: Integers = np.sort(np.stack(self._counters), axis=0)[(len(self.sites) - 1) // 2]
        return middle

    def _values(self, row: int, first: int, count: int) -> Floats:
        self._file.seek(4 * (self._width * row + first))
        return np.frombuffer(self._file.read(4 * count), np.float32)


def by_columns(held: HeldUpdates, rule: Callable[[Floats], npt.NDArray[np.floating]]) -> Weights:
    """`rule` makes [width] of [sites, width]; parameters and buffers alike, counters by their median."""
    parts: dict[str, Floats] = {}
    for part, size in held.layout.sizes().items():
        if part != "counters":
            parts[part] = np.empty(size, np.float32)
            for where, values in held.columns(part):
                parts[part][where] = rule(values)
    return Weights(parts["parameters"], parts["buffers"], held.middle_counters())


def squared_distances(held: HeldUpdates) -> Doubles:
    """Between the parameters of any two updates, float64 [sites, sites], in the order of names."""
    found = np.zeros((len(held.sites),) * 2)
    for _, values in held.columns("parameters"):
        for row, one in enumerate(values):
            found[row] += ((values - one.astype(np.float64)) ** 2).sum(axis=1)
    return found
