"""Streaming reducers: add one update, drop it. Memory is that of one sum, whatever the number of sites."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedai.errors import FederationError
from fedai.weights import Layout, Weights


def check_update(update: Weights, layout: Layout, cases: int) -> None:
    """Refuse what must not be averaged: wrong shapes, values that aren't finite, no cases. Raises
    FederationError.
    """
    for part, size in layout.sizes().items():
        array = getattr(update, part)
        if array.shape != (size,):
            raise FederationError(f"{part} have shape {array.shape}, expected ({size},)")
    if not update.is_finite():
        raise FederationError("the update holds NaN or infinity")
    if cases < 1:
        raise FederationError(f"the update claims {cases} cases")


@dataclass
class FedAvg:
    """Mean of updates weighted by training cases (McMahan et al., AISTATS 2017), summed in float64.

    Parameters and buffers are averaged; counters (integers) take the largest value, since an average of
    counts means nothing.
    """

    layout: Layout
    cases: int = 0
    sites: list[str] = field(default_factory=list)
    _parameters: npt.NDArray[np.float64] = field(init=False)
    _buffers: npt.NDArray[np.float64] = field(init=False)
    _counters: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        sizes = self.layout.sizes()
        self._parameters = np.zeros(sizes["parameters"], np.float64)
        self._buffers = np.zeros(sizes["buffers"], np.float64)
        self._counters = np.zeros(sizes["counters"], np.int64)

    def add(self, site: str, update: Weights, cases: int) -> None:
        """Fold one site's update in. Raises FederationError where it may not be averaged; the sum is then
        unchanged.
        """
        check_update(update, self.layout, cases)
        self._parameters += update.parameters.astype(np.float64) * cases
        self._buffers += update.buffers.astype(np.float64) * cases
        np.maximum(self._counters, update.counters, out=self._counters)
        self.cases += cases
        self.sites.append(site)

    def mean(self) -> Weights:
        """The averaged update. Raises FederationError when nothing was added."""
        if not self.cases:
            raise FederationError("no update to average", hint="every site failed or was late")
        return Weights(
            (self._parameters / self.cases).astype(np.float32),
            (self._buffers / self.cases).astype(np.float32),
            self._counters.copy(),
        )
