"""The rule of buffered rounds: worked out by hand, in exact fractions, and in any order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from aggregated import LAYOUT, Site, after, weights
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from studies import small_study

from fedai.errors import FederationError
from fedai.strategies import Conditions, FedAvg, FedBuff
from fedai.strategies.fedbuff import StaleMean
from fedai.weights import Weights

START = weights([1, -1, 0.5, 0, 2], 7, 3)
TWO: dict[str, Site] = {
    "north": (weights([1, 2, 0, 0, 4], 10, 5), 30, 6),
    "east": (weights([5, -2, 0, 4, 0], 2, 9), 10, 2),
}
Stale = tuple[str, Weights, int, int]  # site, update, cases, staleness


def folded(rule: FedBuff, updates: list[Stale]) -> StaleMean:
    found = rule.gather(Conditions(LAYOUT))
    for site, update, cases, staleness in updates:
        found.add(site, update, cases, staleness=staleness)
    return found


def moved(rule: FedBuff, updates: list[Stale]) -> Weights:
    return rule.step(START, folded(rule, updates).update(), {}, 1)[0]


def test_a_stale_update_counts_by_the_root_of_the_rounds_that_it_missed() -> None:
    """East trained on weights of three rounds before: 1 / sqrt(1 + 3) of its update.

    (30 [1 2 0 0 4] + 10 / 2 [5 -2 0 4 0]) / 40; the running statistic (30 * 10 + 5 * 2) / 35.
    """
    (north, east) = ((site, update, cases) for site, (update, cases, *_) in TWO.items())
    found = moved(FedBuff(name="FedBuff"), [(*north, 0), (*east, 3)])
    np.testing.assert_allclose(found.parameters - START.parameters, [55 / 40, 50 / 40, 0, 0.5, 3], rtol=1e-6)
    np.testing.assert_allclose(found.buffers, [310 / 35], rtol=1e-6)
    assert found.counters.tolist() == [9]


def test_the_power_and_the_learning_rate_are_the_studys() -> None:
    rule = FedBuff(name="FedBuff", staleness_power=1, learning_rate=0.5)
    found = moved(rule, [("north", weights([8, 0, 0, 0, 0]), 10, 3)])
    np.testing.assert_allclose(found.parameters[0] - 1, 0.5 * 8 / 4)


def test_with_nobody_late_it_is_fedavg_to_the_bit() -> None:
    buffered, plain = (after(rule, START, [TWO, TWO]) for rule in (FedBuff(name="FedBuff"), FedAvg()))
    assert all(buffered.arrays()[part].tobytes() == plain.arrays()[part].tobytes() for part in plain.arrays())


NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=5, max_size=5)
UPDATES = st.lists(st.tuples(NUMBERS, st.integers(1, 500), st.integers(0, 9)), min_size=1, max_size=8)


@given(UPDATES, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_a_bit_of_what_is_folded(drawn: list[Any], luck: Any) -> None:
    updates = [(f"s{i}", weights(values), cases, stale) for i, (values, cases, stale) in enumerate(drawn)]
    turned = updates.copy()
    luck.shuffle(turned)
    first, second = (folded(FedBuff(name="FedBuff"), order).update() for order in (updates, turned))
    assert all(first.arrays()[part].tobytes() == second.arrays()[part].tobytes() for part in first.arrays())


@given(UPDATES)
def test_what_is_folded_is_the_formula(drawn: list[Any]) -> None:
    updates = [(f"s{i}", weights(values), cases, stale) for i, (values, cases, stale) in enumerate(drawn)]
    total = sum(cases for *_, cases, _ in updates)
    expected = [
        math.fsum(float(u.parameters[i]) * cases / math.sqrt(1 + stale) for _, u, cases, stale in updates)
        / total
        for i in range(5)
    ]
    found = folded(FedBuff(name="FedBuff"), updates).update().parameters
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_update_of_a_round_to_come_and_one_without_cases_are_refused_and_change_nothing() -> None:
    mean = folded(FedBuff(name="FedBuff"), [("north", weights([1, 2, 3, 4, 5]), 10, 0)])
    for cases, staleness in ((10, -1), (0, 0)):
        with pytest.raises(FederationError):
            mean.add("east", weights([9, 9, 9, 9, 9]), cases, staleness=staleness)
    assert mean.update().parameters.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("buffer", "quorum"), [(1, 2), (4, 2)])
def test_a_buffer_below_the_quorum_or_beyond_all_sites_is_refused(buffer: int, quorum: int) -> None:
    with pytest.raises(ValidationError, match=f"buffer is {buffer}: at least the quorum, 2, at most all 3"):
        small_study(strategy={"name": "FedBuff", "buffer": buffer}, rounds={"quorum": quorum})
