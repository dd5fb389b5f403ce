from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedai.aggregation import WeightedMean
from fedai.errors import FederationError
from fedai.weights import Entry, Layout, Weights, pack

LAYOUT = Layout(
    (Entry("w", (2,), "float32"), Entry("b", (), "float32")),
    (Entry("mean", (2,), "float32"),),
    (Entry("seen", (1,), "int64"),),
)


def update(parameters: list[float], buffers: list[float] = [0, 0], counters: int = 0) -> Weights:  # noqa: B006
    return Weights(
        np.array(parameters, np.float32), np.array(buffers, np.float32), np.array([counters], np.int64)
    )


def test_two_sites_give_the_mean_worked_out_by_hand() -> None:
    mean = WeightedMean(LAYOUT)
    mean.add("north", update([1, 2, 3], [10, 20], 5), cases=30)
    mean.add("east", update([5, -2, 0], [2, 0], 7), cases=10)
    found = mean.update()
    assert found.parameters.tolist() == [2, 1, 2.25]  # (30 a + 10 b) / 40
    assert found.buffers.tolist() == [8, 15]
    assert found.counters.tolist() == [7]
    assert (mean.cases, mean.sites) == (40, ["north", "east"])
    assert (found.parameters.dtype, found.buffers.dtype, found.counters.dtype) == (
        "float32",
        "float32",
        "int64",
    )


def test_one_site_alone_is_its_own_mean() -> None:
    mean = WeightedMean(LAYOUT)
    mean.add("north", update([0.1, 0.2, 0.3]), cases=7)
    assert (mean.update().parameters == np.array([0.1, 0.2, 0.3], np.float32)).all()


REFUSED = {
    "NaN": (update([1, np.nan, 3]), 5, "NaN or infinity"),
    "infinity": (update([1, np.inf, 3]), 5, "NaN or infinity"),
    "NaN in a buffer": (update([1, 2, 3], [np.nan, 0]), 5, "NaN or infinity"),
    "too few parameters": (update([1, 2]), 5, "parameters have shape"),
    "too many buffers": (update([1, 2, 3], [1, 2, 3]), 5, "buffers have shape"),
    "parameters of two dimensions": (
        Weights(np.zeros((3, 1), np.float32), np.zeros(2, np.float32), np.zeros(1, np.int64)),
        5,
        "parameters have shape",
    ),
    "no counter": (
        Weights(np.zeros(3, np.float32), np.zeros(2, np.float32), np.zeros(0, np.int64)),
        5,
        "counters",
    ),
    "values beyond all measure": (update([1e20, 2, 3]), 5, "as large as 1e"),
    "more cases than anybody has": (update([1, 2, 3]), 2**40, "claims 1099511627776 cases"),
    "no case": (update([1, 2, 3]), 0, "claims 0 cases"),
    "fewer cases than none": (update([1, 2, 3]), -4, "claims -4 cases"),
}


@pytest.mark.parametrize(("bad", "cases", "told"), REFUSED.values(), ids=REFUSED)
def test_what_may_not_be_averaged_is_refused_and_leaves_the_sum_as_it_was(
    bad: Weights, cases: int, told: str
) -> None:
    mean = WeightedMean(LAYOUT)
    mean.add("north", update([1, 2, 3], [4, 5], 6), cases=3)
    before = mean.update()
    with pytest.raises(FederationError, match=told):
        mean.add("east", bad, cases)
    after = mean.update()
    assert (before.parameters == after.parameters).all()
    assert (before.buffers == after.buffers).all()
    assert (before.counters == after.counters).all()
    assert (mean.cases, mean.sites) == (3, ["north"])


def test_nothing_has_no_mean() -> None:
    with pytest.raises(FederationError, match="no update to average"):
        WeightedMean(LAYOUT).update()


def test_an_update_is_not_changed_by_being_added() -> None:
    given_, mean = update([1, 2, 3], [4, 5], 6), WeightedMean(LAYOUT)
    mean.add("north", given_, cases=9)
    mean.add("east", update([9, 9, 9], [9, 9], 9), cases=9)
    assert given_.parameters.tolist() == [1, 2, 3]
    assert given_.counters.tolist() == [6]


number = st.floats(-1e3, 1e3, width=32)
updates = st.lists(
    st.tuples(st.lists(number, min_size=3, max_size=3), st.integers(1, 10_000), st.integers(0, 2**60)),
    min_size=1,
    max_size=6,
)


floats32 = st.floats(-1e6, 1e6, width=32, allow_subnormal=True)
terms = st.lists(st.tuples(floats32, st.integers(1, 100_000)), min_size=1, max_size=8)


@given(terms, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_a_bit(drawn: list[tuple[float, int]], rng: random.Random) -> None:
    turned = list(drawn)
    rng.shuffle(turned)
    means = []
    for order in (drawn, turned):
        mean = WeightedMean(LAYOUT)
        for value, cases in order:
            mean.add("site", update([value, -value, value / 3], [value / 1e3, abs(value)], cases), cases)
        means.append(mean.update())
    for part in ("parameters", "buffers", "counters"):
        assert getattr(means[0], part).tobytes() == getattr(means[1], part).tobytes()
    assert means[0].counters.tolist() == [max(cases for _, cases in drawn)]


@given(terms)
def test_the_mean_is_the_fraction_that_a_person_would_work_out(drawn: list[tuple[float, int]]) -> None:
    mean = WeightedMean(LAYOUT)
    for value, cases in drawn:
        mean.add("site", update([value, 0, 0]), cases)
    exact = sum(Fraction(value) * cases for value, cases in drawn) / sum(cases for _, cases in drawn)
    found = Fraction(float(mean.update().parameters[0]))
    assert abs(found - exact) <= abs(exact) * Fraction(1, 2**23) + Fraction(len(drawn), 2**61)


def test_what_floating_point_would_lose_is_there() -> None:
    mean = WeightedMean(LAYOUT)
    for value in (1e6, 2**-40, -1e6):
        mean.add("site", update([value, 0, 0]), 1)
    assert mean.update().parameters[0] == np.float32(2**-40 / 3)


BATCH_NORM = Layout(
    (),
    (
        Entry("n.running_mean", (2,), "float32"),
        Entry("n.running_var", (2,), "float32"),
        Entry("scale", (1,), "float32"),
    ),
    (Entry("n.num_batches_tracked", (), "int64"),),
)


def statistics(values: np.ndarray, scale: float, batches: int) -> Weights:
    """What a BatchNorm that saw these values [cases, 2] once would hold."""
    buffers = np.concatenate([values.mean(axis=0), values.var(axis=0), [scale]]).astype(np.float32)
    return Weights(np.zeros(0, np.float32), buffers, np.array([batches], np.int64))


def test_running_statistics_become_those_of_all_cases_together() -> None:
    rng = np.random.default_rng(5)
    north, east = rng.normal(0, 1, (300, 2)), rng.normal((3, -40), (2, 7), (100, 2))
    mean = WeightedMean(BATCH_NORM)
    mean.add("north", statistics(north, 2.0, 11), 300)
    mean.add("east", statistics(east, 6.0, 4), 100)
    both, found = np.concatenate([north, east]), mean.update()
    np.testing.assert_allclose(found.buffers[:2], both.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.buffers[2:4], both.var(axis=0), rtol=1e-5)
    assert found.buffers[4] == 3.0  # any other float buffer: the mean, (300 * 2 + 100 * 6) / 400
    assert found.counters.tolist() == [11]


def test_one_sites_running_statistics_stay_as_they_are() -> None:
    given_ = statistics(np.random.default_rng(1).normal(100, 0.1, (50, 2)), 1.0, 3)
    mean = WeightedMean(BATCH_NORM)
    mean.add("north", given_, 50)
    assert mean.update().buffers.tolist() == given_.buffers.tolist()


def test_a_network_with_the_aggregated_state_evaluates_as_the_statistics_of_all_cases_say() -> None:
    import torch

    from fedai.weights import layout_of, unpack

    network = torch.nn.BatchNorm1d(2, momentum=None)
    layout = layout_of(network)
    rng, mean = np.random.default_rng(2), WeightedMean(layout)
    parts = [rng.normal(place, 1 + place, (60, 2)).astype(np.float32) for place in (0, 4)]
    for name, part in zip(("north", "east"), parts, strict=True):
        site = torch.nn.BatchNorm1d(2, momentum=None)
        site(torch.from_numpy(part))
        mean.add(name, pack(site, layout), 60)
    found = mean.update()
    unpack(found, network, layout)
    assert int(network.num_batches_tracked) == 1  # a whole number still
    both = np.concatenate(parts)
    variance = np.mean([part.var(axis=0, ddof=1) for part in parts], axis=0) + np.var(
        [part.mean(axis=0) for part in parts], axis=0
    )
    expected = (both - both.mean(axis=0)) / np.sqrt(variance + network.eps)
    np.testing.assert_allclose(
        network.eval()(torch.from_numpy(both)).detach().numpy(), expected, rtol=1e-4, atol=1e-5
    )


@given(updates)
def test_the_mean_lies_between_the_least_and_the_greatest(drawn: list[tuple[list[float], int, int]]) -> None:
    mean = WeightedMean(LAYOUT)
    for parameters, cases, counter in drawn:
        mean.add("site", update(parameters, counters=counter), cases)
    values = np.array([parameters for parameters, _, _ in drawn], np.float32)
    found = mean.update().parameters
    assert (found >= values.min(axis=0) - 1e-3).all()
    assert (found <= values.max(axis=0) + 1e-3).all()


def test_a_variance_below_zero_is_refused() -> None:
    bad = statistics(np.ones((2, 2)), 1.0, 1)
    bad.buffers[3] = -0.5
    with pytest.raises(FederationError, match="variance below zero"):
        WeightedMean(BATCH_NORM).add("east", bad, 5)
