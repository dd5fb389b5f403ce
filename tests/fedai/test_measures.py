from __future__ import annotations

import pytest

from fedai.measures import across, across_differences, within_one
from fedai.statistics import mean_interval


def test_no_interval_of_a_difference_reaches_beyond_what_a_difference_can_be() -> None:
    found = [(0.3, 0.01), (-0.4, 0.02), (0.1, 0.01)]
    plain, bounded = across(found), across_differences(found)
    assert plain is not None
    assert bounded is not None
    assert plain.prediction95 is not None
    assert bounded.prediction95 is not None
    assert plain.prediction95[0] < -1 or plain.prediction95[1] > 1
    assert bounded.prediction95 == within_one(plain.prediction95)
    assert bounded.estimate == plain.estimate


@pytest.mark.parametrize("interval", [(-3.4, 3.5), (-0.2, 0.1)])
def test_what_lies_between_minus_one_and_one_stays(interval: tuple[float, float]) -> None:
    low, high = within_one(interval)
    assert -1 <= low <= high <= 1
    assert interval[0] < -1 or (low, high) == interval


def test_cases_that_are_all_alike_give_no_interval() -> None:
    assert mean_interval(0.25, (40 * 0.0625, 40 * 0.25, 40.0), 40, 40) is None
    assert mean_interval(0.25, (40 * 0.0625 + 1, 40 * 0.25, 40.0), 40, 40) is not None
