from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import small_study

from fedai.overview import BINS, EDGES, FORM, apart, overview_arrays, overview_rows, read_overview, small_bins

CELL = 3
VALUES = st.one_of(st.none(), st.floats(-2000, 60000, allow_nan=False))
IMAGES = st.lists(st.tuples(st.integers(0, 9), VALUES), max_size=40)


def arrays_of(images: list[tuple[int, float | None]]) -> dict[str, np.ndarray[Any, Any]]:
    values = {name: [value for _, value in images] for name in EDGES}
    return overview_arrays(values, [f"p{number}" for number, _ in images], CELL)


@given(IMAGES)
def test_every_bin_that_is_told_of_is_of_three_patients_and_all_known_images_are_in_one(
    images: list[tuple[int, float | None]],
) -> None:
    arrays = arrays_of(images)
    assert {name: (str(a.dtype), a.shape) for name, a in arrays.items()} == FORM
    assert small_bins(arrays, CELL) == []
    known = [(number, value) for number, value in images if value is not None]
    lacking = {number for number, value in images if value is None}
    told = len({number for number, _ in known}) >= CELL and not 0 < len(lacking) < CELL
    for name, bins in read_overview(arrays).items():
        assert sum(one["images"] for one in bins) == (len(known) if told else 0), name
        for one in bins:
            low, high = one["at_least"], one["below"]
            inside = [n for n, v in known if (low is None or v >= low) and (high is None or v < high)]
            assert len(set(inside)) >= CELL
            assert len(inside) == one["images"]


@given(IMAGES)
def test_bins_that_have_patients_enough_stay_by_themselves(images: list[tuple[int, float | None]]) -> None:
    arrays, known = arrays_of(images), [(n, v) for n, v in images if v is not None]
    if not arrays["overview_images"].any():
        return
    for row, edges in enumerate(EDGES.values()):
        having: dict[int, set[int]] = {}
        for number, value in known:
            having.setdefault(int(np.digitize(value, edges)), set()).add(number)
        if all(len(patients) >= CELL for patients in having.values()):
            counts = Counter(int(np.digitize(value, edges)) for _, value in known)
            assert arrays["overview_images"][row].tolist() == [counts[at] for at in range(BINS)]


@pytest.mark.parametrize(
    ("at", "images", "starts", "said"),
    [
        (3, 2, 3, "of fewer than 3 images"),
        (3, 5, 4, "not in order"),
        (3, 5, 2, "not in order"),  # a count where the bin isn't the first of those that are one
    ],
)
def test_what_tells_of_a_few_images_or_of_no_bins_is_refused(
    at: int, images: int, starts: int, said: str
) -> None:
    arrays = arrays_of([(number, 100.0) for number in range(9)])
    arrays["overview_images"][1, at] = images
    arrays["overview_starts"][1, at] = starts
    assert any(said in problem for problem in small_bins(arrays, CELL))


def test_a_site_whose_images_are_like_no_others_is_told() -> None:
    plain = read_overview(arrays_of([(number, 0.15) for number in range(9)]))
    coarse = read_overview(arrays_of([(number, 0.8) for number in range(9)]))
    sites = {"north": plain, "south": plain, "west": coarse}
    assert apart(sites)[0] == "spacing_mm: west's images are like no other site's"
    assert apart({"north": plain, "south": plain}) == []
    rows = {(row[0], row[1]): row[2:] for row in overview_rows(sites)}
    assert rows["spacing_mm", "north"] == ("9", "0.14 to 0.16", "0.14 to 0.16")
    assert rows["spacing_mm", "west"] == ("9", "0.7 to 0.9", "0.7 to 0.9")


def test_a_measure_that_one_or_two_patients_lack_is_not_told_of() -> None:
    images: list[tuple[int, float | None]] = [(number, 0.15) for number in range(9)]
    few = overview_rows({"north": read_overview(arrays_of([*images, (10, None)]))})
    assert few[0] == ("spacing_mm", "north", "-", "not told, or not known", "")
    assert (
        arrays_of([*images, (10, None), (11, None), (12, None)])["overview_images"].sum(axis=1).tolist()
        == [9] * 4
    )


def test_a_study_that_asks_for_none_keeps_its_hash() -> None:
    assert small_study().sha256 == small_study(overview=False).sha256
    assert small_study().sha256 != small_study(overview=True).sha256
    assert "overview" not in small_study().canonical()
