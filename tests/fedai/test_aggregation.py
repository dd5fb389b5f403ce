from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedai.aggregation import FedAvg
from fedai.errors import FederationError
from fedai.weights import Entry, Layout, Weights

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
    mean = FedAvg(LAYOUT)
    mean.add("north", update([1, 2, 3], [10, 20], 5), cases=30)
    mean.add("east", update([5, -2, 0], [2, 0], 7), cases=10)
    found = mean.mean()
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
    mean = FedAvg(LAYOUT)
    mean.add("north", update([0.1, 0.2, 0.3]), cases=7)
    assert (mean.mean().parameters == np.array([0.1, 0.2, 0.3], np.float32)).all()


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
    "no case": (update([1, 2, 3]), 0, "claims 0 cases"),
    "fewer cases than none": (update([1, 2, 3]), -4, "claims -4 cases"),
}


@pytest.mark.parametrize(("bad", "cases", "told"), REFUSED.values(), ids=REFUSED)
def test_what_may_not_be_averaged_is_refused_and_leaves_the_sum_as_it_was(
    bad: Weights, cases: int, told: str
) -> None:
    mean = FedAvg(LAYOUT)
    mean.add("north", update([1, 2, 3], [4, 5], 6), cases=3)
    before = mean.mean()
    with pytest.raises(FederationError, match=told):
        mean.add("east", bad, cases)
    after = mean.mean()
    assert (before.parameters == after.parameters).all()
    assert (before.buffers == after.buffers).all()
    assert (before.counters == after.counters).all()
    assert (mean.cases, mean.sites) == (3, ["north"])


def test_nothing_has_no_mean() -> None:
    with pytest.raises(FederationError, match="no update to average"):
        FedAvg(LAYOUT).mean()


def test_an_update_is_not_changed_by_being_added() -> None:
    given_, mean = update([1, 2, 3], [4, 5], 6), FedAvg(LAYOUT)
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


@given(updates, st.randoms(use_true_random=False))
def test_the_order_in_which_updates_come_in_does_not_matter(
    drawn: list[tuple[list[float], int, int]], rng: object
) -> None:
    turned = list(drawn)
    rng.shuffle(turned)  # type: ignore[attr-defined]
    means = []
    for order in (drawn, turned):
        mean = FedAvg(LAYOUT)
        for parameters, cases, counter in order:
            mean.add("site", update(parameters, counters=counter), cases)
        means.append(mean.mean())
    np.testing.assert_allclose(means[0].parameters, means[1].parameters, rtol=1e-6, atol=1e-6)
    assert means[0].counters.tolist() == means[1].counters.tolist() == [max(c for _, _, c in drawn)]


@given(updates)
def test_the_mean_lies_between_the_least_and_the_greatest(drawn: list[tuple[list[float], int, int]]) -> None:
    mean = FedAvg(LAYOUT)
    for parameters, cases, counter in drawn:
        mean.add("site", update(parameters, counters=counter), cases)
    values = np.array([parameters for parameters, _, _ in drawn], np.float32)
    found = mean.mean().parameters
    assert (found >= values.min(axis=0) - 1e-3).all()
    assert (found <= values.max(axis=0) + 1e-3).all()
