from __future__ import annotations

import numpy as np
import pytest
from federations import Cases, classic_delong, draw_cases, judgement_of, raw_covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fedai.metrics import BINS, ScoreHistogram, ThresholdCounts, bin_scores
from fedai.placements import PlacementSums
from fedai.statistics import (
    auroc_covariance,
    auroc_interval,
    binormal_variance,
    call_interval,
    combined_variance,
    contrast,
    covariance_parts,
    degrees_of_freedom,
    disjoint_pairs,
    effective_size,
    holm,
    mean_interval,
    non_inferiority,
    score_interval,
    wilson_interval,
)

SKILL = {"federated": 1.5, "local:a": 0.9, "local:b": 0.6}
SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, patients: int = 60, **options: float) -> Cases:
    return draw_cases(np.random.default_rng(seed), "s", patients, skill=SKILL, **options)  # type: ignore[arg-type]


def binned(scores: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return np.asarray(bin_scores(scores)[:, k] / BINS)


def sums_of(cases: Cases) -> PlacementSums:
    scores = list(cases.scores.values())
    return PlacementSums.of(
        scores, [ScoreHistogram.of(s, cases.labels) for s in scores], cases.labels, cases.patients
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([2, 3]))
def test_covariance_from_sums_is_obuchowskis_on_the_binned_rows(seed: int, classes: int) -> None:
    cases = draw(seed, classes=classes)
    covariance = auroc_covariance(sums_of(cases)).reshape(3, -1, 3, 3 if classes == 3 else 1)
    for k, task in enumerate([1] if classes == 2 else [0, 1, 2]):
        positive = cases.labels == task
        for i, a in enumerate(cases.scores.values()):
            for j, b in enumerate(cases.scores.values()):
                expected = raw_covariance(binned(a, task), binned(b, task), positive, cases.patients)
                assert covariance[i, k, j, k] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_with_one_image_a_patient_it_is_the_classic_delong(seed: int) -> None:
    cases = draw(seed, most_images=1)
    covariance = auroc_covariance(sums_of(cases))
    positive = cases.labels == 1
    for i, a in enumerate(cases.scores.values()):
        for j, b in enumerate(cases.scores.values()):
            expected = classic_delong(binned(a, 1), binned(b, 1), positive)
            assert covariance[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_binning_moves_the_variance_by_less_than_a_hundredth() -> None:
    cases = draw(11, patients=400)
    covariance = auroc_covariance(sums_of(cases))
    for i, a in enumerate(cases.scores.values()):
        raw = raw_covariance(a[:, 1], a[:, 1], cases.labels == 1, cases.patients)
        assert covariance[i, i] == pytest.approx(raw, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_sites_together_give_the_covariance_of_the_pooled_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sites = {s: draw_cases(rng, s, 25, skill=SKILL, classes=3) for s in ("a", "b", "c")}
    judgement = judgement_of(sites, ("x", "y", "z"))
    rows = Cases(
        {m: np.concatenate([c.scores[m] for c in sites.values()]) for m in SKILL},
        np.concatenate([c.labels for c in sites.values()]),
        [p for c in sites.values() for p in c.patients],
    )
    np.testing.assert_allclose(
        auroc_covariance(judgement.pooled.placements), auroc_covariance(sums_of(rows)), rtol=1e-9, atol=1e-15
    )
    for i, model in enumerate(SKILL):
        np.testing.assert_allclose(
            judgement.pooled.placements.auroc()[i], judgement.merged(model).histogram.auroc()
        )


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([2, 4]))
def test_the_covariance_has_no_negative_direction(seed: int, classes: int) -> None:
    values = np.linalg.eigvalsh(auroc_covariance(sums_of(draw(seed, classes=classes))))
    assert values.min() > -1e-12


def bootstrap_differences(cases: Cases, replicates: int, seed: int) -> NDArray[np.float64]:
    """federated - mean(local) on patients drawn with replacement: multiplicities weigh the binned pairs."""
    rng = np.random.default_rng(seed)
    names, number = np.unique(cases.patients, return_inverse=True)
    positive = cases.labels == 1
    b = [binned(s, 1) for s in cases.scores.values()]
    kernels = [
        (s[positive][:, None] > s[~positive]) + 0.5 * (s[positive][:, None] == s[~positive]) for s in b
    ]
    joint = kernels[0] - (kernels[1] + kernels[2]) / 2
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)[:, number]
    up, down = draws[:, positive].astype(float), draws[:, ~positive].astype(float)
    return np.asarray(np.einsum("rp,pn,rn->r", up, joint, down, optimize=True) / up.sum(1) / down.sum(1))


def test_the_paired_difference_agrees_with_a_patient_bootstrap() -> None:
    cases = draw(5, patients=250)
    sums = sums_of(cases)
    result = contrast([1, -0.5, -0.5], sums.auroc().ravel(), auroc_covariance(sums))
    assert result is not None
    assert result.se is not None
    assert result.ci95 is not None
    replicates = bootstrap_differences(cases, 2000, seed=1)
    assert result.se == pytest.approx(replicates.std(), rel=0.1)
    low, high = np.quantile(replicates, [0.025, 0.975])
    assert result.ci95 == pytest.approx((low, high), abs=0.15 * (high - low))


def test_ignoring_the_patients_makes_the_interval_too_narrow() -> None:
    rng = np.random.default_rng(3)
    ill = rng.random(80) < 0.4
    number = np.repeat(np.arange(80), 4)
    logits = 0.8 * ill[number] + rng.normal(size=80)[number] + 0.5 * rng.normal(size=320)
    scores = np.column_stack([1 - 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-logits))])
    labels = ill[number].astype(int)
    histogram = ScoreHistogram.of(scores, labels)
    clustered = PlacementSums.of([scores], [histogram], labels, [f"p{i}" for i in number])
    alone = PlacementSums.of([scores], [histogram], labels, [f"c{i}" for i in range(320)])
    ratio = np.sqrt(auroc_covariance(clustered)[0, 0] / auroc_covariance(alone)[0, 0])
    assert ratio > 1.5


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Binormal clusters with a known AUROC: 400 federations, 95% nominal, wide enough for chance (4 se)."""
    from statistics import NormalDist

    rng = np.random.default_rng(12)
    truth = NormalDist().cdf(1.2 / np.sqrt(2))
    inside = 0
    for _ in range(400):
        ill = rng.random(60) < 0.35
        number = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        x = 1.2 * ill[number] + np.sqrt(0.6) * rng.normal(size=60)[number]
        x = x + np.sqrt(0.4) * rng.normal(size=len(number))
        p = 1 / (1 + np.exp(-x))
        scores, labels = np.column_stack([1 - p, p]), ill[number].astype(int)
        sums = PlacementSums.of(
            [scores], [ScoreHistogram.of(scores, labels)], labels, [str(i) for i in number]
        )
        variance = float(auroc_covariance(sums)[0, 0])
        interval = auroc_interval(float(sums.auroc()[0, 0]), variance, 20)
        assert interval is not None
        inside += interval[0] <= truth <= interval[1]
    assert 0.91 <= inside / 400 <= 0.985


def test_an_auroc_of_exactly_one_has_an_honest_lower_end() -> None:
    assert auroc_interval(1.0, 0.0, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert auroc_interval(0.0, float("nan"), 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert auroc_interval(1.0, float("nan"), 1) == (0.025, 1.0)


def test_pairs_of_different_patients_are_counted_cautiously() -> None:
    assert disjoint_pairs(np.array([[30], [10]]), 40) == 10
    assert disjoint_pairs(np.array([[10], [10]]), 10) == 5  # every patient is on both sides
    assert disjoint_pairs(np.array([[40, 41], [5, 4]]), 45) == 8
    assert disjoint_pairs(np.array([[1], [1]]), 1) == 1


def test_intervals_stay_within_zero_and_one() -> None:
    low, high = auroc_interval(0.99, 0.02**2, 10) or (-1, 2)
    assert 0 < low < 0.99 < high < 1


@pytest.mark.parametrize("variance", [0.0, 1e-20, float("nan")])
def test_nothing_to_estimate_is_none(variance: float) -> None:
    assert auroc_interval(0.5, variance, 10) is None
    assert auroc_interval(float("nan"), 0.1, 10) is None


def test_one_patient_has_no_covariance() -> None:
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 1, 1])
    sums = PlacementSums.of([scores], [ScoreHistogram.of(scores, labels)], labels, ["p", "p", "p"])
    assert np.isnan(auroc_covariance(sums)).all()


def test_a_model_against_itself_differs_by_nothing_and_has_no_interval() -> None:
    cases = draw(2)
    twins = Cases(
        {"a": cases.scores["federated"], "b": cases.scores["federated"]}, cases.labels, cases.patients
    )
    sums = sums_of(twins)
    result = contrast([1, -1], sums.auroc().ravel(), auroc_covariance(sums))
    assert result is not None
    assert (result.difference, result.se, result.ci95, result.p) == (0.0, None, None, None)


def test_an_unknown_auroc_without_weight_plays_no_part() -> None:
    covariance = np.array([[0.01, 0.0, np.nan], [0.0, 0.01, np.nan], [np.nan] * 3])
    known = contrast([1, -1, 0], [0.8, 0.7, np.nan], covariance)
    assert known is not None
    assert known.se == pytest.approx(np.sqrt(0.02))
    assert known.p == pytest.approx(0.4795, abs=1e-4)
    assert contrast([1, 0, -1], [0.8, 0.7, np.nan], covariance) is None
    assert combined_variance([1, -1, 0], covariance) == pytest.approx(0.02)
    assert np.isnan(combined_variance([1, 0, -1], covariance))


def test_wilsons_interval_as_published() -> None:
    # Newcombe, Stat Med 1998;17:857, table I, method 3
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson_interval(float("nan"), 0) is None


def test_alike_cases_of_a_patient_count_as_one() -> None:
    # 20 patients, 3 alike cases each, 12 patients right: h*h = h*n = 12*9, n*n = 20*9
    size = effective_size(0.6, [108, 108, 180], 20, 60)
    assert size == pytest.approx(19, abs=0.1)
    assert effective_size(1.0, [180, 180, 180], 20, 60) == pytest.approx(20)
    assert effective_size(1.0, [9, 9, 9], 1, 3) == pytest.approx(1)
    assert effective_size(float("nan"), [0, 0, 0], 0, 0) == 0


def test_independent_cases_count_in_full() -> None:
    size = effective_size(0.6, [600, 600, 1000], 1000, 1000)
    assert size == pytest.approx(999)


def test_the_interval_of_a_sensitivity_is_wider_for_clustered_cases() -> None:
    rng = np.random.default_rng(0)
    p = np.repeat(rng.random(30), 4)
    scores, labels = np.column_stack([1 - p, p]), np.ones(120, int)
    clustered = ThresholdCounts.of(scores, labels, [str(i // 4) for i in range(120)], 0.5)
    alone = ThresholdCounts.of(scores, labels, [str(i) for i in range(120)], 0.5)
    widths = [np.subtract(*(call_interval(c, 0, 1) or (0, 0))[::-1]) for c in (clustered, alone)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)
    assert call_interval(alone, 0, 0) is None


def test_the_binormal_variance_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(4000, 25)), rng.normal(1.5, 1, size=(4000, 12))
    drawn = (y[:, :, None] > x[:, None, :]).mean(axis=(1, 2))
    assert binormal_variance(drawn.mean(), (25, 12)) == pytest.approx(drawn.var(), rel=0.06)
    assert binormal_variance(0.3, (25, 12)) == pytest.approx(binormal_variance(0.7, (25, 12)))


@given(st.floats(0.02, 0.98), st.floats(1e-5, 0.02), st.floats(5, 300), st.integers(10, 400))
def test_an_interval_of_values_not_rejected_holds_the_value_and_is_within_0_and_1(
    auroc: float, variance: float, df: float, positives: int
) -> None:
    sizes = (50, positives)
    low, high = score_interval(auroc, variance, df, sizes, sizes) or (2, -1)
    assert 0 <= low < auroc < high <= 1
    mirrored = score_interval(1 - auroc, variance, df, sizes, sizes)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_with_many_cases_the_interval_is_the_plain_one_and_a_variance_too_small_is_not_believed() -> None:
    many = (40_000, 30_000)
    variance = binormal_variance(0.8, many)
    low, high = score_interval(0.8, variance, np.inf, many, many) or (0, 0)
    assert (low, high) == pytest.approx((0.8 - 1.96 * variance**0.5, 0.8 + 1.96 * variance**0.5), abs=1e-4)
    few = (60, 12)
    believed = score_interval(0.9, 1e-6, 15, few, few)
    assert believed == pytest.approx(score_interval(0.9, binormal_variance(0.9, few), 15, few, few))
    assert score_interval(0.9, 0.0, 15, few, few) is None
    assert score_interval(1.0, 0.0, 15, few, few) == auroc_interval(1.0, 0.0, 12)


def test_degrees_of_freedom_lie_between_the_smaller_side_and_both_sides_together() -> None:
    sums = sums_of(draw(3))
    parts = covariance_parts(sums)
    np.testing.assert_allclose(parts.sum(axis=(0, 1)), auroc_covariance(sums))
    members = sums.members[:, 0]
    df = degrees_of_freedom([1, -1, 0], parts, sums.members)
    assert members.min() - 1 <= df <= members.sum() - 2
    assert degrees_of_freedom([0, 0, 1], np.full_like(parts, np.nan), sums.members) == 1.0


def test_fewer_degrees_of_freedom_give_a_wider_interval_and_a_larger_p() -> None:
    covariance = np.diag([0.001, 0.001])
    plain, on_t = (contrast([1, -1], [0.8, 0.7], covariance, df) for df in (np.inf, 12.0))
    assert plain is not None
    assert on_t is not None
    assert (plain.p or 0) < (on_t.p or 0)
    assert (plain.ci95 or (0, 0))[0] > (on_t.ci95 or (0, 0))[0]
    assert non_inferiority(on_t, 0.05) == pytest.approx(stdtr(12, -0.15 / 0.002**0.5))
    at_zero = non_inferiority(on_t, 0.0)
    assert at_zero == pytest.approx((on_t.p or 0) / 2)


@given(st.lists(st.floats(0, 1) | st.none(), max_size=12))
def test_holms_adjustment_never_helps_and_keeps_the_order(ps: list[float | None]) -> None:
    adjusted = holm(ps)
    pairs = [(p, a) for p, a in zip(ps, adjusted, strict=True) if p is not None and a is not None]
    assert [a is None for a in adjusted] == [p is None for p in ps]
    assert all(p <= a <= 1 for p, a in pairs)
    ordered = [a for _, a in sorted(pairs)]
    assert ordered == sorted(ordered)
    if pairs and min(pairs)[0] * len(ps) <= 1:
        assert min(pairs)[1] == min(pairs)[0] * len(ps)


def test_a_mean_of_single_cases_has_students_interval() -> None:
    x = np.array([0.1, 0.4, 0.2, 0.9, 0.5])
    found = mean_interval(x.mean(), [x @ x, x.sum(), len(x)], len(x), len(x))
    reach = stdtrit(4, 0.975) * x.std(ddof=1) / np.sqrt(5)
    assert found == pytest.approx((x.mean() - reach, x.mean() + reach))
    assert mean_interval(0.5, [1, 1, 1], 1, 1) is None
