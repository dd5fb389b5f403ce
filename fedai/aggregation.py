"""Streaming reducers: add one update, drop it. Memory is that of one sum, whatever the number of sites.

The sum is exact in the sense that counts: it is made of whole numbers, so the order in which sites answer
changes no bit of it, nor do sums of sums (`+`). Each kind of value has a rule of its own:

parameters           mean weighted by training cases
running statistics   those of all cases together: a BatchNorm's variance is that within sites and that between
                     their means (the law of total variance); other float buffers are averaged
counters             the largest value, since an average of counts means nothing
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from fedai.errors import FederationError
from fedai.weights import Entry, Layout, Weights

Doubles = npt.NDArray[np.float64]
Beside = Mapping[str, npt.NDArray[Any]]
NOTHING: Beside = {}
MOST_CASES = 2**31
LARGEST_TERM = 2.0**50  # value times cases; 4,096 of them fit into a sum
FRACTION_BITS = 62
AT_ONCE = 1 << 18  # values; keeps what is needed besides the sum at a few MB


class Gathering(Protocol):
    """What a round folds its updates into; `update` gives the one that moves the weights, `noted` what else
    came of the round. `beside`: what a site sent with its update.
    """

    cases: int
    sites: list[str]

    def add(
        self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING
    ) -> None: ...
    def update(self) -> Weights: ...
    def noted(self) -> dict[str, Doubles]: ...


def check_update(update: Weights, layout: Layout, cases: int) -> None:
    """Refuse what must not be aggregated: wrong shapes, values that aren't finite or too large, no cases.
    Raises FederationError.
    """
    for part, size in layout.sizes().items():
        array = getattr(update, part)
        if array.shape != (size,):
            raise FederationError(f"{part} have shape {array.shape}, expected ({size},)")
    if not update.is_finite():
        raise FederationError("the update holds NaN or infinity")
    if not 1 <= cases <= MOST_CASES:
        raise FederationError(f"the update claims {cases} cases")
    moments = moments_of(layout)
    if any((update.buffers[variance] < 0).any() for _, variance in moments):
        raise FederationError("the update holds a variance below zero")
    means = max((_largest(update.buffers[mean]) for mean, _ in moments), default=0.0)
    largest = max(_largest(update.parameters), _largest(update.buffers) + means**2)
    if largest * cases > LARGEST_TERM:
        raise FederationError(f"the update holds values as large as {largest:.1g}")


def _largest(values: npt.NDArray[np.float32]) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def moments_of(layout: Layout) -> list[tuple[slice, slice]]:
    """Where in the buffers a running mean and the running variance that belongs to it lie."""
    places = _places(layout.buffers)
    names = [name.removesuffix("running_var") for name in places if name.endswith("running_var")]
    pairs = [(places.get(f"{name}running_mean"), places[f"{name}running_var"]) for name in names]
    return [(mean, variance) for mean, variance in pairs if mean and _length(mean) == _length(variance)]


def _places(entries: tuple[Entry, ...]) -> dict[str, slice]:
    ends = np.cumsum([0, *(entry.size for entry in entries)]).tolist()
    return {entry.name: slice(ends[i], ends[i + 1]) for i, entry in enumerate(entries) if entry.size}


def _length(place: slice) -> int:
    return int(place.stop - place.start)


class ExactSum:
    """Sum of float64 values [N], each below `LARGEST_TERM`, as whole numbers of 2^-62.

    A value finer than that is rounded, once and by itself; what is added is whole numbers, so no order of
    adding gives another sum. 16 bytes a value.
    """

    def __init__(self, size: int) -> None:
        self._whole = np.zeros(size, np.int64)
        self._fraction = np.zeros(size, np.int64)  # of 2^62, never negative

    def add(self, values: npt.NDArray[np.floating], factor: float = 1.0) -> None:
        """Add `factor` times `values`."""
        for part in _parts(len(self._whole)):
            term = values[part].astype(np.float64) * factor
            whole = np.trunc(term)
            fraction = self._fraction[part] + np.rint(np.ldexp(term - whole, FRACTION_BITS)).astype(np.int64)
            self._whole[part] += whole.astype(np.int64) + (fraction >> FRACTION_BITS)
            self._fraction[part] = fraction & ((1 << FRACTION_BITS) - 1)

    def __add__(self, other: ExactSum) -> ExactSum:
        """Both sums as one, to the bit as if all had been added to it. Raises ValueError for other sizes."""
        both = ExactSum(len(self._whole))
        fraction = self._fraction + other._fraction  # below 2^63
        both._whole = self._whole + other._whole + (fraction >> FRACTION_BITS)
        both._fraction = fraction & ((1 << FRACTION_BITS) - 1)
        return both

    def over(self, divisor: float) -> Doubles:
        """The sum divided, float64 [N]."""
        half = FRACTION_BITS // 2
        out = np.empty(len(self._whole))
        for part in _parts(len(out)):
            high, low = self._fraction[part] >> half, self._fraction[part] & ((1 << half) - 1)
            coarse = self._whole[part] + np.ldexp(high.astype(np.float64), -half)
            out[part] = (coarse + np.ldexp(low.astype(np.float64), -FRACTION_BITS)) / divisor
        return out


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + AT_ONCE) for start in range(0, size, AT_ONCE))


@dataclass
class WeightedMean:
    """Mean of updates weighted by training cases (McMahan et al., AISTATS 2017)."""

    layout: Layout
    cases: int = 0
    sites: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = self.layout.sizes()
        self._parameters, self._buffers = ExactSum(sizes["parameters"]), ExactSum(sizes["buffers"])
        self._counters = np.zeros(sizes["counters"], np.int64)
        self._weights: list[float] = []
        self._parameter_weights: list[float] = []
        self._moments = moments_of(self.layout)

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        """Fold one site's update in. Raises FederationError where it may not be averaged; the sum is then
        unchanged.
        """
        self.admit(site, update, cases, cases)

    def admit(self, site: str, update: Weights, cases: int, parameter_weight: float) -> None:
        """Check an update and fold it in, with a weight of its own for the parameters. Raises
        FederationError.
        """
        check_update(update, self.layout, cases)
        if _largest(update.parameters) * parameter_weight > LARGEST_TERM:
            raise FederationError(f"the update counts for as much as {parameter_weight:.1g}")
        self.fold(update, cases, parameter_weight)
        self.cases += cases
        self.sites.append(site)

    def fold(self, update: Weights, weight: float, parameter_weight: float | None = None) -> None:
        """Fold in an update that was checked, with any weight."""
        own = weight if parameter_weight is None else parameter_weight
        self._parameters.add(update.parameters, own)
        self._buffers.add(self._raw_moments(update.buffers), weight)
        np.maximum(self._counters, update.counters, out=self._counters)
        self._weights.append(weight)
        self._parameter_weights.append(own)

    def __add__(self, other: Self) -> Self:
        """Both as one, to the bit as if every update had been folded into it: sums of regions are as good as
        one sum of all sites. Raises FederationError for another kind, layout or setting, or a site in both.
        """
        if type(self) is not type(other) or self._settings() != other._settings():
            raise FederationError("sums of different kinds, networks or settings can't be one")
        twice = set(self.sites) & set(other.sites)
        if twice:
            raise FederationError(f"{', '.join(sorted(twice))}: in both sums, and would count twice")
        both = replace(self, cases=self.cases + other.cases, sites=self.sites + other.sites)
        both._parameters = self._parameters + other._parameters
        both._buffers = self._buffers + other._buffers
        both._counters = np.maximum(self._counters, other._counters)
        both._weights = self._weights + other._weights
        both._parameter_weights = self._parameter_weights + other._parameter_weights
        return both

    def _settings(self) -> list[object]:
        """What was given when this was made, not what was added since."""
        names = [each.name for each in fields(self) if not each.name.startswith("_")]
        return [getattr(self, name) for name in names if name not in ("cases", "sites")]

    @property
    def parameter_weight(self) -> float:
        """What the parameters were weighted with in all; exactly rounded, whatever the order."""
        return math.fsum(self._parameter_weights)

    def update(self) -> Weights:
        """The averaged update. Raises FederationError when nothing was added."""
        total = math.fsum(self._weights)
        if not total:
            raise FederationError("no update to average", hint="every site failed or was late")
        buffers = self._buffers.over(total)
        for mean, variance in self._moments:
            buffers[variance] = np.maximum(buffers[variance] - buffers[mean] ** 2, 0)
        parameters = self._parameters.over(self.parameter_weight).astype(np.float32)
        return Weights(parameters, buffers.astype(np.float32), self._counters.copy())

    def noted(self) -> dict[str, Doubles]:
        return {}

    def _raw_moments(self, buffers: npt.NDArray[np.float32]) -> Doubles:
        """Variances as mean squares, which add up."""
        raw = buffers.astype(np.float64)
        for mean, variance in self._moments:
            raw[variance] += raw[mean] ** 2
        return raw


@dataclass
class EqualMean(WeightedMean):
    """Mean of the parameters in which sites count alike, of buffers by cases; `among` so many sites."""

    among: int = 1

    def add(self, site: str, update: Weights, cases: int, steps: int = 1, beside: Beside = NOTHING) -> None:
        self.admit(site, update, cases, 1.0)
