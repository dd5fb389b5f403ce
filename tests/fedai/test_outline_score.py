from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedai.errors import FederationError
from fedai.outline_score import (
    HIGHEST,
    LOWEST,
    OutlineLinks,
    OutlineScore,
    outline_forms,
    outline_links_forms,
)
from fedai.outlines import MEASURES


def draw(cases: int, seed: int, structures: int = 2) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values, some undefined, what was found, and patients with up to three cases."""
    rng = np.random.default_rng(seed)
    values = LOWEST + (HIGHEST - LOWEST) * rng.random((cases, structures, len(MEASURES)))
    found = rng.integers(0, 4, (cases, structures))
    values[found == 0] = np.nan
    values[..., 2][found < 3] = np.nan
    return values, found, [f"s{seed}p{number // 3}" for number in rng.permutation(cases)]


def joined(parts: list[tuple[np.ndarray, np.ndarray, list[str]]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        [name for part in parts for name in part[2]],
    )


def close(one: OutlineScore, other: OutlineScore) -> bool:
    pairs = zip(one.to_arrays().values(), other.to_arrays().values(), strict=True)
    return all(np.allclose(a, b, rtol=1e-12) for a, b in pairs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_sum_of_sites_is_the_score_of_their_pooled_cases_in_any_order_and_grouping(
    sizes: list[int], rng: object
) -> None:
    parts = [draw(size, seed) for seed, size in enumerate(sizes)]
    scores = [OutlineScore.of(*part) for part in parts]
    pooled = OutlineScore.of(*joined(parts))
    rng.shuffle(scores)  # type: ignore[attr-defined]
    assert close(functools.reduce(operator.add, scores), pooled)
    assert close(functools.reduce(lambda a, b: b + a, scores), pooled)


def test_links_add_up_too() -> None:
    parts = [draw(size, seed) for seed, size in enumerate((7, 12, 9))]
    others = [draw(size, seed + 90)[0] for seed, size in enumerate((7, 12, 9))]
    links = [OutlineLinks.of([part[0], b], part[2], b"") for part, b in zip(parts, others, strict=True)]
    values, _, patients = joined(parts)
    pooled = OutlineLinks.of([values, np.concatenate(others)], patients, b"")
    summed = links[0] + links[1] + links[2]
    assert np.allclose(summed.products, pooled.products, rtol=1e-12)
    assert np.array_equal(summed.patients, pooled.patients)
    assert np.array_equal(summed.differences, pooled.differences)
    assert summed.differences.sum() > 0


def test_means_and_squares_are_those_of_the_defined_cases_by_patient() -> None:
    values, found, patients = draw(30, 3, 1)
    score, dice = OutlineScore.of(values, found, patients), values[:, 0, 0]
    assert score.means[0, 0] == pytest.approx(np.nanmean(dice))
    by_patient = {p: [v for v, q in zip(dice, patients, strict=True) if p == q] for p in patients}
    x = np.array([np.nansum(v) for v in by_patient.values()])
    n = np.array([np.isfinite(v).sum() for v in by_patient.values()])
    assert np.allclose(score.squares[0, 0], [x @ x, x @ n, n @ n])
    assert score.patients[0, 0] == (n > 0).sum()
    assert score.found.sum() == 30


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 99))
def test_a_quantile_is_right_to_half_a_bin(cases: int, share: float, seed: int) -> None:
    values, _, patients = draw(cases, seed, 1)
    values = np.where(np.isnan(values), LOWEST, values)
    score = OutlineScore.of(values, np.full((cases, 1), 3), patients)
    for v, (name, half) in enumerate(zip(MEASURES, (0.0025, 0.0025, 0.25, 5.0), strict=True)):
        told = score.quantile(0, name, share)
        true = np.quantile(values[:, 0, v], share, method="averaged_inverted_cdf")
        if told is None or np.isinf(told):
            assert v > 1  # beyond an open end
            assert told is None or abs(true) >= 94, "that of the bins"
            assert told is None or np.sign(told) == np.sign(true)
        else:
            assert abs(told - true) <= half + 1e-9


def test_of_a_measure_that_too_few_patients_have_nothing_is_told() -> None:
    values = np.full((6, 1, 4), 0.5)
    values[2:, 0, 2] = np.nan
    patients = ["a", "a", "b", "c", "d", "e"]
    score = OutlineScore.of(values, np.full((6, 1), 3), patients, least=3)
    arrays = score.to_arrays()
    assert all((arrays[name][0, 2] == 0).all() for name in outline_forms(1) if name != "outline_found")
    assert score.cases[0].tolist() == [6, 6, 0, 6]
    links = OutlineLinks.of([values, np.full((6, 1, 4), 0.4)], patients, b"", least=3)
    assert (links.products[0, 2][[0, 2]] == 0).all(), "the first model's sums and numbers"
    assert links.products[0, 2, 1, 1] > 0
    assert links.patients[0].tolist() == [5, 5, 5, 5]
    assert (links.drawn[0, 2, [0, 2]] == 0).all()


def test_the_arrays_are_of_their_forms_and_come_back() -> None:
    values, found, patients = draw(20, 5)
    score, links = OutlineScore.of(values, found, patients), OutlineLinks.of([values] * 3, patients, b"")
    for arrays, forms in (
        (score.to_arrays(), outline_forms(2)),
        (links.to_arrays(), outline_links_forms(2, 3)),
    ):
        assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == forms
    assert close(OutlineScore.from_arrays(score.to_arrays()), score)
    arrays = links.to_arrays()
    assert OutlineLinks.from_arrays(arrays).models == 3
    arrays["outline_differences"][0, 0, 0] += 99
    with pytest.raises(FederationError, match="more patients differ"):
        OutlineLinks.from_arrays(arrays)


@pytest.mark.parametrize(
    ("name", "amount"),
    [("outline_cases", 1), ("outline_sums", 500.0), ("outline_patients", 99), ("outline_found", -99)],
)
def test_a_score_that_contradicts_itself_is_refused(name: str, amount: float) -> None:
    arrays = OutlineScore.of(*draw(20, 5)).to_arrays()
    arrays[name] = arrays[name] + np.array(amount, arrays[name].dtype)
    with pytest.raises(FederationError):
        OutlineScore.from_arrays(arrays)


@pytest.mark.parametrize("missed", [0, 1, 2, 3])
def test_patients_whom_one_model_alone_misses_are_not_set_off_by_products(missed: int) -> None:
    """Sums of one model over all, less its products with the other's numbers of cases, would be theirs."""
    rng = np.random.default_rng(5)
    a = rng.uniform(0.2, 0.9, (12, 1, len(MEASURES)))
    b = rng.uniform(0.2, 0.9, a.shape)
    b[:missed] = np.nan
    links = OutlineLinks.of([a, b], [f"p{number}" for number in range(12)], b"", least=3)
    left = a.sum(axis=0) - links.products[:, :, 0, 3]
    if missed in (0, 3):
        assert np.allclose(left, a[:missed].sum(axis=0))
    else:
        assert np.allclose(left, a.sum(axis=0)), "nothing of the other model is told beside it"
