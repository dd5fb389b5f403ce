from __future__ import annotations

from collections import Counter, defaultdict
from random import Random

import pytest
from fedai_site.deidentify.demographics import (
    Outcome,
    Protected,
    age,
    age_band,
    protect,
    size,
    size_band,
    weight,
    weight_band,
)
from hypothesis import given, settings
from hypothesis import strategies as st

QUASI = ("PatientSex", "PatientAge")


@pytest.mark.parametrize(
    ("value", "coded"),
    [
        ("089Y", "089Y"),
        ("090Y", "090Y"),
        ("091Y", "090Y"),
        ("104Y ", "090Y"),
        ("003D", "000M"),
        ("045D", "001M"),
        ("010W", "002M"),
        ("012M", "012M"),
        ("023M", "023M"),
        ("024M", "002Y"),
        ("999M", "083Y"),
        ("", ""),
        ("45", None),
        ("45 years", None),
        ("HONG", None),
        ("091y", None),
    ],
)
def test_ages_are_coded_at_both_ends(value: str, coded: str | None) -> None:
    assert age(value) == coded


@given(st.integers(0, 999), st.sampled_from("DWMY"))
@settings(deadline=None)
def test_no_age_above_89_is_told_from_another(number: int, unit: str) -> None:
    coded = age(f"{number:03}{unit}")
    assert coded is not None
    assert int(coded[:3]) <= 90
    assert age(coded) == coded


def test_rare_sizes_and_weights_are_coded_and_impossible_ones_dropped() -> None:
    assert [size(text) for text in ("1.72", "2.13", "0.35", "1.7249", "", "172", "tall")] == [
        "1.72", "2", "0.4", "1.72", "", None, None]  # fmt: skip
    assert [weight(text) for text in ("72.46", "231", "1.1", "70", " ", "70000", "1e3")] == [
        "72.5", "150", "2", "70", "", None, None]  # fmt: skip


def test_bands_are_ten_years_centimetres_and_kilograms_wide() -> None:
    assert [age_band(text) for text in ("030Y", "039Y", "011M", "090Y", "")] == [
        "035Y", "035Y", "005Y", "090Y", ""]  # fmt: skip
    assert [size_band(text) for text in ("1.70", "1.79", "1.8")] == ["1.75", "1.75", "1.85"]
    assert [weight_band(text) for text in ("70", "79.9", "80")] == ["75", "75", "85"]


PATIENTS = st.lists(
    st.fixed_dictionaries(
        {
            "PatientSex": st.sampled_from(["M", "F"]),
            "PatientAge": st.integers(28, 44).map("{:03}Y".format),
            "diagnosis": st.sampled_from("abc"),
        }
    ),
    max_size=60,
)
K, L = st.integers(1, 6), st.integers(1, 3)


def cells(rows: list[dict[str, str]], outcomes: list[Protected]) -> dict[tuple[str, ...], list[str]]:
    found = defaultdict(list)
    for row, outcome in zip(rows, outcomes, strict=True):
        found[outcome.values].append(row["diagnosis"])
    return {cell: found[cell] for cell in found if any(cell)}


@given(PATIENTS, K, L)
@settings(deadline=None)
def test_every_cell_that_stays_holds_k_patients_and_l_diagnoses(
    rows: list[dict[str, str]], k: int, diversity: int
) -> None:
    outcomes = protect(rows, QUASI, k, diversity, "diagnosis")
    for members in cells(rows, outcomes).values():
        assert len(members) >= k
        assert len(set(members)) >= diversity


@given(PATIENTS, K, L)
@settings(deadline=None)
def test_nobody_is_suppressed_whose_band_is_large_enough(
    rows: list[dict[str, str]], k: int, diversity: int
) -> None:
    def band(row: dict[str, str]) -> tuple[str, str]:
        return row["PatientSex"], age_band(row["PatientAge"])

    outcomes = protect(rows, QUASI, k, diversity, "diagnosis")
    found = defaultdict(list)
    for row in rows:
        found[band(row)].append(row["diagnosis"])
    for row, outcome in zip(rows, outcomes, strict=True):
        members = found[band(row)]
        is_large = len(members) >= k and len(set(members)) >= diversity
        assert (outcome.outcome is Outcome.SUPPRESS) == (not is_large)


@given(PATIENTS, K)
@settings(deadline=None)
def test_a_cell_that_is_large_enough_is_touched_only_to_save_its_neighbours(
    rows: list[dict[str, str]], k: int
) -> None:
    outcomes = protect(rows, QUASI, k)
    exact = Counter((row["PatientSex"], row["PatientAge"]) for row in rows)
    small_bands = {(sex, age_band(years)) for (sex, years), number in exact.items() if number < k}
    for row, outcome in zip(rows, outcomes, strict=True):
        if (row["PatientSex"], age_band(row["PatientAge"])) not in small_bands:
            assert outcome == Protected(Outcome.KEEP, (row["PatientSex"], row["PatientAge"]))


@given(PATIENTS, K, L, st.randoms())
@settings(deadline=None)
def test_the_order_of_patients_does_not_matter(
    rows: list[dict[str, str]], k: int, diversity: int, random: Random
) -> None:
    places = list(range(len(rows)))
    random.shuffle(places)
    before = protect(rows, QUASI, k, diversity, "diagnosis")
    after = protect([rows[place] for place in places], QUASI, k, diversity, "diagnosis")
    assert after == [before[place] for place in places]


def test_patients_of_whom_nothing_is_known_have_nothing_to_hide() -> None:
    outcomes = protect([{}, {"PatientSex": "F", "PatientAge": "034Y"}], QUASI, 2)
    assert outcomes == [Protected(Outcome.KEEP, ("", "")), Protected(Outcome.SUPPRESS, ("", ""))]


def test_demands_that_make_no_sense_are_refused() -> None:
    for k, diversity in ((0, 1), (2, 0), (2, 2)):
        with pytest.raises(ValueError, match="at least 1"):
            protect([], QUASI, k, diversity)
