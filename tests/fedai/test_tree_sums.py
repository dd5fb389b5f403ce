"""Sums of regions, added up at the top, are the sum of all sites to the bit: fedai.aggregation's `+`."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from fedai.aggregation import EqualMean, ExactSum, WeightedMean
from fedai.errors import FederationError
from fedai.strategies.feddyn import AnsweringPart
from fedai.strategies.fednova import NormalizedMean
from fedai.strategies.qfedavg import START_LOSS, FairMean
from fedai.strategies.scaffold import CONTROL, ControlMean
from fedai.weights import Entry, Layout, Weights

LAYOUT = Layout(
    (Entry("w", (3,), "float32"),),
    (Entry("n.running_mean", (1,), "float32"), Entry("n.running_var", (1,), "float32")),
    (Entry("n.num_batches_tracked", (), "int64"),),
)
MAKERS: dict[str, Callable[[], WeightedMean]] = {
    "by cases": lambda: WeightedMean(LAYOUT),
    "alike": lambda: EqualMean(LAYOUT, among=9),
    "FedNova": lambda: NormalizedMean(LAYOUT, momentum=0.9),
    "q-FedAvg": lambda: FairMean(LAYOUT, q=0.7, lipschitz=20.0),
    "SCAFFOLD": lambda: ControlMean(LAYOUT, among=9),
    "FedDyn": lambda: AnsweringPart(LAYOUT, among=9),
}
value = some.floats(-1e5, 1e5, width=32, allow_subnormal=True)
variance, cases, steps = some.floats(0, 1e5, width=32), some.integers(1, 50_000), some.integers(1, 90)
site = some.tuples(value, value, variance, cases, steps)
Drawn = tuple[float, float, float, int, int]


def fold(mean: WeightedMean, name: str, drawn: Drawn) -> None:
    one, other, variance, cases, steps = drawn
    parameters = np.array([one, other, one / 3], np.float32)
    update = Weights(parameters, np.array([other, variance], np.float32), np.array([cases], np.int64))
    beside = {START_LOSS: np.array([variance / 1e5 * 20]), CONTROL: np.array([other, one, 7e-9], np.float32)}
    mean.add(name, update, cases, steps, beside)


def flat(make: Callable[[], WeightedMean], sites: dict[str, Drawn]) -> WeightedMean:
    mean = make()
    for name, drawn in sites.items():
        fold(mean, name, drawn)
    return mean


def tree(make: Callable[[], WeightedMean], sites: dict[str, Drawn], rng: random.Random) -> WeightedMean:
    """Regions of regions, cut anywhere and met in any order."""
    names = rng.sample(sorted(sites), len(sites))
    if len(names) < 2 or rng.random() < 0.2:
        return flat(make, {name: sites[name] for name in names})
    cut = rng.randrange(0, len(names))  # a region may also be empty: none of its sites has answered
    below = [{name: sites[name] for name in part} for part in (names[:cut], names[cut:])]
    if not cut:
        return make() + flat(make, below[1])
    return functools.reduce(operator.add, [tree(make, part, rng) for part in below])


def bits(mean: WeightedMean) -> list[bytes]:
    """All that a round takes from a sum."""
    update, noted = mean.update(), mean.noted()
    parts = [update.parameters, update.buffers, update.counters, *(noted[name] for name in sorted(noted))]
    return [part.tobytes() for part in parts]


@pytest.mark.parametrize("kind", MAKERS)
@given(drawn=some.lists(site, min_size=1, max_size=8), rng=some.randoms(use_true_random=False))
def test_a_tree_of_regions_gives_the_flat_sum_to_the_bit(
    kind: str, drawn: list[Drawn], rng: random.Random
) -> None:
    sites = {f"site-{number}": one for number, one in enumerate(drawn)}
    all_at_once, by_regions = flat(MAKERS[kind], sites), tree(MAKERS[kind], sites, rng)
    assert bits(by_regions) == bits(all_at_once)
    assert by_regions.cases == all_at_once.cases
    assert sorted(by_regions.sites) == sorted(all_at_once.sites)


@given(some.lists(some.tuples(value, value), min_size=1, max_size=9), some.integers(0, 9))
def test_two_exact_sums_add_up_to_the_sum_of_both(values: list[tuple[float, float]], cut: int) -> None:
    whole, first, second = ExactSum(2), ExactSum(2), ExactSum(2)
    for number, pair in enumerate(values):
        term = np.array(pair, np.float32)
        whole.add(term, 3.0)
        (first if number < cut else second).add(term, 3.0)
    assert (first + second).over(7.0).tobytes() == whole.over(7.0).tobytes()


def test_plain_floating_point_would_not_give_the_same_bits() -> None:
    """The property above is no matter of course: float32 means of means differ."""
    values = np.array([1e6, 1.1, -1e6, 0.3], np.float32)
    assert (values[0] + values[1]) + (values[2] + values[3]) != np.float32(
        ((values[0] + values[2]) + values[1]) + values[3]
    )


def test_adding_leaves_both_sums_as_they_were() -> None:
    one = flat(MAKERS["FedNova"], {"north": (1.5, 2.0, 3.0, 10, 2)})
    other = flat(MAKERS["FedNova"], {"east": (-4.0, 0.1, 9.0, 30, 5)})
    before = bits(one), bits(other)
    both = one + other
    fold(both, "south", (7.0, 7.0, 7.0, 7, 7))
    assert (bits(one), bits(other)) == before
    assert one.sites == ["north"]


def test_a_site_in_two_regions_is_refused() -> None:
    north = {"north": (1.0, 1.0, 1.0, 10, 1)}
    with pytest.raises(FederationError, match="north: in both sums"):
        flat(MAKERS["by cases"], north) + flat(MAKERS["by cases"], north)


def test_sums_of_other_strategies_networks_or_settings_are_refused() -> None:
    for one, other in (
        (WeightedMean(LAYOUT), EqualMean(LAYOUT)),
        (WeightedMean(LAYOUT), WeightedMean(Layout(LAYOUT.parameters, (), ()))),
        (EqualMean(LAYOUT, among=3), EqualMean(LAYOUT, among=4)),
        (NormalizedMean(LAYOUT, momentum=0.9), NormalizedMean(LAYOUT, momentum=0.5)),
    ):
        with pytest.raises(FederationError, match="can't be one"):
            one + other
