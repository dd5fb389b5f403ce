from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from federations import Cases, draw_cases, judgement_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix

from fedai.calibration import CENTRES, Calibration, DecisionCurve, recalibrate, treat_all, variances
from fedai.compare import compare
from fedai.errors import FederationError
from fedai.linking import Linked
from fedai.metrics import BINS, bin_scores, patient_numbers
from fedai.score import Score

SEEDS = st.integers(0, 2**32 - 1)
THRESHOLDS = (0.05, 0.2, 0.5, 0.9)


def cases_of(seed: int, patients: int = 60, classes: int = 2, most_images: int = 3) -> Cases:
    skill = {"federated": 1.5, "local:a": 0.7}
    rng = np.random.default_rng(seed)
    return draw_cases(rng, f"s{seed}", patients, skill=skill, classes=classes, most_images=most_images)


def score_of(cases: Cases) -> Score:
    return Score.of(cases.scores["federated"], cases.labels, cases.patients, 0.4, THRESHOLDS)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.sampled_from([2, 4]))
def test_calibration_and_net_benefit_are_those_of_the_rows_to_1e_12(seed: int, classes: int) -> None:
    parts = [cases_of(seed + i, 25, classes) for i in range(3)]
    merged = score_of(parts[0]) + score_of(parts[1]) + score_of(parts[2])
    scores = np.concatenate([c.scores["federated"] for c in parts])
    labels = np.concatenate([c.labels for c in parts])
    for k, task in enumerate([1] if classes == 2 else range(classes)):
        p, y = scores[:, task], labels == task
        observed, predicted = calibration_curve(y, p, n_bins=10)
        mean, share, cases = merged.calibration.curve(k)
        np.testing.assert_allclose(mean[cases > 0], predicted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(share[cases > 0], observed, rtol=0, atol=1e-12)
        error = (np.abs(observed - predicted) * cases[cases > 0]).sum() / len(y)
        assert merged.calibration.error()[k] == pytest.approx(error, abs=1e-12)
        for t, threshold in enumerate(THRESHOLDS):
            _, fp, _, tp = confusion_matrix(y, p >= threshold, labels=[False, True]).ravel()
            benefit = tp / len(y) - fp / len(y) * threshold / (1 - threshold)
            assert merged.decision.net_benefit()[k, t] == pytest.approx(benefit, abs=1e-12)
            everybody = y.mean() - (1 - y.mean()) * threshold / (1 - threshold)
            assert treat_all(merged.histogram.cases[k], THRESHOLDS)[t] == pytest.approx(everybody, abs=1e-12)
    if classes == 2:
        assert merged.brier.value == pytest.approx(brier_score_loss(labels, scores[:, 1]), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_confusion_matrix_is_scikit_learns(classes: int) -> None:
    cases = cases_of(4, 80, classes)
    p = cases.scores["federated"]
    called = p[:, 1] >= 0.4 if classes == 2 else p.argmax(axis=1)
    expected = confusion_matrix(cases.labels, called.astype(int), labels=range(classes))
    assert score_of(cases).confusion.tolist() == expected.tolist()


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_slope_and_intercept_are_statsmodels_on_the_bins_and_near_those_of_the_rows(seed: int) -> None:
    cases = cases_of(seed, 150)
    p, y = cases.scores["federated"][:, 1], cases.labels
    found = recalibrate(score_of(cases).histogram.counts[0])
    binned = CENTRES[bin_scores(p)]
    for x, close in ((binned, 1e-7), (np.log(p / (1 - p)), 5e-3)):
        fit = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-12, maxiter=200)
        assert [found.offset, found.slope] == pytest.approx(fit.params.tolist(), abs=close)
        held = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=x).fit(tol=1e-12)
        assert found.intercept == pytest.approx(float(held.params[0]), abs=close)


def test_the_variance_of_the_slope_is_the_clustered_sandwich_of_statsmodels() -> None:
    cases = cases_of(11, 200)
    p, y = cases.scores["federated"][:, 1], cases.labels
    numbers, patients = patient_numbers(cases.patients, len(y))
    histogram = score_of(cases).histogram
    linked = Linked.of([cases.scores["federated"]], [histogram], y, cases.patients, b"seed")
    counts = histogram.counts[0]
    found = variances(counts, recalibrate(counts), linked.recalibrations[0], patients)
    groups = {"groups": numbers, "use_correction": False}
    family, x = sm.families.Binomial(), CENTRES[bin_scores(p)]
    slope = sm.GLM(y, sm.add_constant(x), family=family).fit(tol=1e-12, cov_type="cluster", cov_kwds=groups)
    alone = sm.GLM(y, np.ones(len(y)), family=family, offset=x).fit(cov_type="cluster", cov_kwds=groups)
    factor = patients / (patients - 1)
    assert found[0] == pytest.approx(slope.bse[1] ** 2 * factor, rel=1e-6)
    assert found[1] == pytest.approx(alone.bse[0] ** 2 * factor, rel=1e-6)


def test_where_a_score_parts_the_sides_there_is_no_slope() -> None:
    counts = np.zeros((2, BINS), np.int64)
    counts[0, [10, 20, 30]], counts[1, [30, 40]] = 4, 4
    assert not recalibrate(counts).known
    assert not recalibrate(counts[::-1]).known
    assert not recalibrate(counts * 0).known
    counts[1, 15] = 1
    assert recalibrate(counts).known


def test_a_calibrated_model_has_slope_one_and_intercept_zero_within_its_intervals() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(2, 5, 3000)
    y = (rng.random(3000) < p).astype(np.int64)
    cases = Cases({"federated": np.stack([1 - p, p], axis=1)}, y, [f"p{n // 2}" for n in range(3000)])
    result = compare(judgement_of({"a": cases}, ("no", "yes"))).models[0].pooled.classes[0]
    for measure, truth in ((result.slope, 1.0), (result.intercept, 0.0)):
        assert measure.ci95 is not None
        assert measure.ci95[0] < truth < measure.ci95[1]
        assert measure.ci95[1] - measure.ci95[0] < 0.5


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_calibration_and_decision_curves_add_up_in_any_order(seed: int) -> None:
    a, b, c = (score_of(cases_of(seed + i, 12)) for i in range(3))
    for left, right in ((a + b, b + a), ((a + b) + c, a + (c + b))):
        for kind in ("calibration", "decision"):
            one, other = getattr(left, kind).to_arrays(), getattr(right, kind).to_arrays()
            for name in one:
                np.testing.assert_allclose(one[name], other[name], atol=1e-9)


def test_decision_curves_at_other_thresholds_do_not_add_up() -> None:
    cases = cases_of(1)
    other = Score.of(cases.scores["federated"], cases.labels, cases.patients, 0.4, (0.3,))
    with pytest.raises(FederationError, match="different thresholds"):
        score_of(cases) + other


def test_sums_that_no_probabilities_have_are_refused() -> None:
    arrays = score_of(cases_of(1)).to_arrays()
    for change in (arrays["calibration_sums"] + 1e6, -arrays["calibration_sums"]):
        with pytest.raises(FederationError, match="not those of probabilities"):
            Calibration.from_arrays({**arrays, "calibration_sums": change})


def test_the_interval_of_net_benefit_agrees_with_a_patient_bootstrap() -> None:
    cases, rng = cases_of(8, 200), np.random.default_rng(0)
    curve = compare(judgement_of({"a": cases}, ("no", "yes"), 0.5, (0.2,))).models[0].pooled
    found = curve.classes[0].net_benefits[0].model
    p, y = cases.scores["federated"][:, 1], cases.labels == 1
    numbers, patients = patient_numbers(cases.patients, len(y))
    gain = np.where(y, 1.0, -0.25) * (p >= 0.2)
    x, n = np.bincount(numbers, gain, patients), np.bincount(numbers, minlength=patients)
    drawn = rng.integers(0, patients, (4000, patients))
    values = x[drawn].sum(axis=1) / n[drawn].sum(axis=1)
    assert found.ci95 is not None
    assert found.ci95 == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)


def test_no_cases_have_no_curve() -> None:
    empty = DecisionCurve.of(np.zeros((0, 1)), np.zeros((0, 1), bool), np.zeros(0, np.int64), 0, (0.5,))
    assert np.isnan(empty.net_benefit()).all()
    assert np.isnan(Calibration.of(np.zeros((0, 1)), np.zeros((0, 1), bool)).error()).all()
