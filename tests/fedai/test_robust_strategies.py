"""Strategies for sites that may send anything: what one liar among seven can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aggregated import LAYOUT, SIZE, Site, combined, draw_rounds, weights
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedai.errors import FederationError
from fedai.strategies import Conditions, Rule, Strategy, held
from fedai.strategies.bulyan import around_median
from fedai.strategies.geometric_median import reweighed
from fedai.strategies.held import HeldUpdates, by_columns, squared_distances
from fedai.strategies.krum import closest
from fedai.strategies.median import median
from fedai.strategies.trimmed_mean import trimmed_mean

ROBUST = ("Median", "TrimmedMean", "Krum", "Bulyan", "GeometricMedian")


def rule_of(**settings: Any) -> Rule:
    made: Rule = TypeAdapter(Strategy).validate_python(settings)
    return made


def honest() -> dict[str, Site]:
    (sites,) = draw_rounds(rounds=1)
    return sites


def lying(sites: dict[str, Site], factor: float) -> dict[str, Site]:
    """The same, but the first site sends its update times `factor` and claims a million cases."""
    (first, (update, _, steps, *_)), *rest = sites.items()
    return {first: (weights((update.parameters * factor).tolist(), 1e3, 2**60), 10**6, steps), **dict(rest)}


@pytest.mark.parametrize(
    "factor", [-1.0, -50.0, 1000.0], ids=["sign-flipping", "flipping and scaling", "scaling"]
)
@pytest.mark.parametrize("name", ROBUST)
def test_one_liar_among_seven_moves_no_further_than_the_honest_differ(name: str, factor: float) -> None:
    sites = honest()
    found = combined(rule_of(name=name), lying(sites, factor))
    good = np.stack([update.parameters for update, *_ in list(sites.values())[1:]])
    spread = 2 * np.abs(good - good.mean(axis=0)).max()
    assert np.abs(found.parameters - good.mean(axis=0)).max() <= spread
    assert found.counters.tolist() == [0]


@pytest.mark.parametrize("factor", [-1.0, -50.0])
def test_an_average_has_no_defence(factor: float) -> None:
    sites = honest()
    found = combined(rule_of(name="FedAvg"), lying(sites, factor)).parameters
    good = np.stack([update.parameters for update, *_ in list(sites.values())[1:]])
    assert np.abs(found - good.mean(axis=0)).max() > 2 * np.abs(good - good.mean(axis=0)).max()


TWO: dict[str, Site] = {
    "north": (weights([1, 2, 0, 0, 4], 10, 5), 30, 6),
    "east": (weights([5, -2, 0, 4, 0], 2, 9), 10, 2),
}


@pytest.mark.parametrize("name", ["Median", "GeometricMedian"])
def test_of_two_sites_it_is_the_middle_whatever_cases_they_claim(name: str) -> None:
    found = combined(rule_of(name=name), TWO)
    np.testing.assert_allclose(found.parameters, [3, 0, 0, 2, 2], rtol=1e-6)
    assert (found.buffers.tolist(), found.counters.tolist()) == ([6.0], [5])


def test_rules_on_columns_worked_out_by_hand() -> None:
    columns = np.array([[1, 9], [2, 8], [3, 7], [50, -60]], np.float32)
    assert median(columns).tolist() == [2.5, 7.5]
    assert trimmed_mean(columns, 1).tolist() == [2.5, 7.5]
    assert around_median(columns, 3).tolist() == [2.0, 8.0]


def test_krum_takes_those_nearest_to_their_neighbours() -> None:
    points = np.array([0.0, 1.0, 2.0, 9.0, 1.4])
    distances = (points[:, None] - points) ** 2
    assert closest(distances, liars=1, keep=1) == [4]  # 0.16 + 0.36, against 0.16 + 1 and more
    assert closest(distances, liars=1, keep=3) == [1, 2, 4]


def test_the_geometric_median_of_three_on_a_line_is_the_middle_one() -> None:
    sites: dict[str, Site] = {f"s{n}": (weights([x, 0, 0, 0, 0]), 5, 1) for n, x in enumerate((0, 1, 10))}
    found = combined(rule_of(name="GeometricMedian", iterations=200), sites)
    assert abs(found.parameters[0] - 1) < 1e-3
    assert reweighed(np.array([1.0, 1.0, 2.0])).tolist() == [0.4, 0.4, 0.2]


points = st.lists(st.lists(st.floats(-9, 9, width=32), min_size=SIZE, max_size=SIZE), min_size=1, max_size=9)


@given(points, st.integers(1, 7))
def test_blocks_of_any_width_make_the_same_update(drawn: list[list[float]], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "BLOCK_VALUES", width * len(drawn))
        updates = HeldUpdates(LAYOUT, lambda all_: by_columns(all_, median))
        for number, values in enumerate(drawn):
            updates.add(f"s{number}", weights(values, number), 1)
        found = updates.update()
        distances = squared_distances(updates)
    whole = np.array(drawn, np.float32)
    assert found.parameters.tolist() == np.median(whole, axis=0).astype(np.float32).tolist()
    expected = ((whole[:, None].astype(float) - whole) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, expected, rtol=1e-9, atol=1e-9)


def test_held_updates_lie_beside_the_run_without_a_name(tmp_path: Path) -> None:
    updates = rule_of(name="Median").gather(Conditions(LAYOUT, folder=tmp_path))
    for name, (update, cases, steps) in TWO.items():
        updates.add(name, update, cases, steps)
    assert list(tmp_path.iterdir()) == []
    assert (updates.cases, updates.sites) == (40, ["north", "east"])


@pytest.mark.parametrize("name", ["Median", "Krum"])
def test_nan_is_refused_before_it_is_held(name: str) -> None:
    updates = rule_of(name=name).gather(Conditions(LAYOUT))
    with pytest.raises(FederationError, match="NaN"):
        updates.add("north", weights([1, np.nan, 0, 0, 0]), 3)
    assert updates.sites == []
