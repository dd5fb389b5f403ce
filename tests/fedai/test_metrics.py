from __future__ import annotations

import numpy as np
import pytest
from federations import Cases, draw_cases, judgement_of, raw_auroc
from hypothesis import given, settings
from hypothesis import strategies as st

from fedai.errors import ConfigError, DataError, FederationError, TrainingError
from fedai.judgement import Judgement
from fedai.metrics import BINS, Mean, ScoreHistogram, ThresholdCounts, bin_scores
from fedai.placements import PlacementSums
from fedai.score import Score, brier

SEEDS = st.integers(0, 2**32 - 1)
SKILL = {"federated": 1.5, "local:a": 0.8}


def cases_of(seed: int, classes: int = 2, patients: int = 40, most_images: int = 3) -> Cases:
    rng = np.random.default_rng(seed)
    return draw_cases(rng, f"s{seed}", patients, skill=SKILL, classes=classes, most_images=most_images)


def score_of(cases: Cases) -> Score:
    return Score.of(cases.scores["federated"], cases.labels, cases.patients, 0.5)


def concatenate(parts: list[Cases]) -> Cases:
    return Cases(
        {m: np.concatenate([p.scores[m] for p in parts]) for m in SKILL},
        np.concatenate([p.labels for p in parts]),
        [name for p in parts for name in p.patients],
    )


def assert_same(a: Score | PlacementSums, b: Score | PlacementSums, rtol: float = 1e-9) -> None:
    left, right = a.to_arrays(), b.to_arrays()
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=rtol, atol=1e-10, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([2, 3, 6]), st.integers(1, 4))
def test_auroc_from_merged_histograms_is_within_the_printed_bound_of_the_raw_one(
    seed: int, classes: int, sites: int
) -> None:
    parts = [cases_of(seed + i, classes) for i in range(sites)]
    histogram = score_of(parts[0]).histogram
    for part in parts[1:]:
        histogram = histogram + score_of(part).histogram
    rows = concatenate(parts)
    for k, task in enumerate([1] if classes == 2 else range(classes)):
        raw = raw_auroc(rows.scores["federated"][:, task], rows.labels == task)
        if np.isnan(raw):
            assert np.isnan(histogram.auroc()[k])
        else:
            assert abs(histogram.auroc()[k] - raw) <= histogram.auroc_bound()[k] + 1e-12
            assert histogram.auroc_bound()[k] < 0.01


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([2, 4]))
def test_addition_of_scores_is_associative_and_commutative(seed: int, classes: int) -> None:
    a, b, c = (score_of(cases_of(seed + i, classes, patients=12)) for i in range(3))
    assert_same(a + b, b + a)
    assert_same((a + b) + c, a + (b + c))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([2, 4]))
def test_merging_sites_equals_pooling_their_rows(seed: int, classes: int) -> None:
    parts = [cases_of(seed + i, classes, patients=15) for i in range(3)]
    merged = score_of(parts[0]) + score_of(parts[1]) + score_of(parts[2])
    assert_same(merged, score_of(concatenate(parts)))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([2, 4]))
def test_placement_sums_add_up_in_any_order_to_those_of_pooled_rows(seed: int, classes: int) -> None:
    parts = [cases_of(seed + i, classes, patients=15) for i in range(3)]
    rows = concatenate(parts)
    pooled = [ScoreHistogram.of(s, rows.labels) for s in rows.scores.values()]
    a, b, c = (PlacementSums.of(list(p.scores.values()), pooled, p.labels, p.patients) for p in parts)
    assert_same((a + b) + c, a + (c + b))
    assert_same(a + b + c, PlacementSums.of(list(rows.scores.values()), pooled, rows.labels, rows.patients))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=3, max_size=3))
def test_means_add_up(values: list[tuple[float, float]]) -> None:
    a, b, c = (Mean(*v) for v in values)
    assert (a + b).total == (b + a).total
    assert ((a + b) + c).total == pytest.approx((a + (b + c)).total, abs=1e-9)
    assert ((a + b) + c).weight == pytest.approx((a + (b + c)).weight)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_binning_keeps_the_order_of_scores(values: list[float]) -> None:
    bins = bin_scores(sorted(values))
    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < BINS


def test_bins_are_on_the_logit_scale_and_symmetric_about_one_half() -> None:
    assert bin_scores([0.0, 0.5, 1.0]).tolist() == [0, BINS // 2, BINS - 1]
    p = 1 / (1 + np.exp(-np.array([-1.001, 1.001])))
    low, high = bin_scores(p)
    assert low + high == BINS - 1


def test_roc_runs_from_corner_to_corner_and_its_area_is_the_auroc() -> None:
    histogram = score_of(cases_of(4)).histogram
    fpr, tpr = histogram.roc()
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(histogram.auroc()[0])


def test_threshold_counts_and_brier_are_those_of_the_rows() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1, 0])
    calls = ThresholdCounts.of(scores, labels, ["a", "a", "b", "b", "c"], 0.5)
    assert calls.counts.tolist() == [[2, 1, 1, 1]]
    assert calls.sensitivity()[0] == pytest.approx(2 / 3)
    assert calls.specificity()[0] == pytest.approx(1 / 2)
    # positives: a 1 of 1, b 1 of 2; negatives: a 1 of 1, c 0 of 1
    assert calls.squares.tolist() == [[[1, 1, 2], [2, 3, 5]]]
    assert calls.patients.tolist() == [[2, 2]]
    assert brier(scores, labels, list("aabbc")).value == pytest.approx(
        np.mean([0.01, 0.25, 0.04, 0.49, 0.36])
    )


def test_brier_of_many_classes_sums_over_classes() -> None:
    assert brier([[0.7, 0.2, 0.1]], [0], ["a"]).value == pytest.approx(0.09 + 0.04 + 0.01)


def test_a_site_with_one_class_gives_no_auroc_and_still_adds_up() -> None:
    scores, labels = np.array([[0.4, 0.6], [0.8, 0.2]]), np.array([1, 1])
    one_class = Score.of(scores, labels, ["a", "b"], 0.5)
    assert np.isnan(one_class.histogram.auroc()).all()
    assert np.isnan(one_class.histogram.auroc_bound()).all()
    assert np.isnan(one_class.calls.specificity()).all()
    own = PlacementSums.of([scores], [one_class.histogram], labels, ["a", "b"])
    assert np.isnan(own.auroc()).all()
    assert np.isfinite(own.products).all()
    assert np.isfinite((one_class + score_of(cases_of(1))).histogram.auroc()).all()


def test_a_site_without_a_case_is_the_neutral_element() -> None:
    nothing = Score.of(np.zeros((0, 2)), np.zeros(0, np.int64), [], 0.5)
    something = score_of(cases_of(2))
    assert_same(nothing + something, something)
    sums = PlacementSums.of([np.zeros((0, 2))], [something.histogram], np.zeros(0, np.int64), [])
    assert sums.patients == 0
    assert not sums.products.any()


def test_perfect_separation_is_an_auroc_of_exactly_one() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert ScoreHistogram.of(scores, [0, 0, 1, 1]).auroc().tolist() == [1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_scores_that_are_not_probabilities_are_refused(value: float) -> None:
    with pytest.raises(TrainingError, match="probabilities"):
        ScoreHistogram.of([[0.5, value]], [1])


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_refused(label: int) -> None:
    with pytest.raises(DataError, match="0 to 1"):
        ScoreHistogram.of([[0.5, 0.5]], [label])


def test_labels_or_patients_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="labels"):
        Score.of([[0.5, 0.5]], [1, 0], ["a"], 0.5)
    with pytest.raises(DataError, match="patients"):
        Score.of([[0.5, 0.5]], [1], ["a", "b"], 0.5)


def test_counts_at_different_thresholds_do_not_add_up() -> None:
    cases = cases_of(3)
    a, b = (
        ThresholdCounts.of(cases.scores["federated"], cases.labels, cases.patients, t) for t in (0.4, 0.5)
    )
    with pytest.raises(FederationError, match=r"0\.4 and 0\.5"):
        a + b


@pytest.mark.parametrize("classes", [2, 5])
def test_values_survive_the_wire(classes: int) -> None:
    cases = cases_of(7, classes)
    score = score_of(cases)
    assert_same(Score.from_arrays(score.to_arrays()), score, rtol=0)
    sums = PlacementSums.of([cases.scores["federated"]], [score.histogram], cases.labels, cases.patients)
    assert_same(PlacementSums.from_arrays(sums.to_arrays()), sums, rtol=0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("histogram", lambda a: a[:, :, 1:]),
        ("histogram", lambda a: a.astype(np.float64)),
        ("histogram", lambda a: a + 1),
        ("threshold_counts", lambda a: -a),
        ("threshold_squares", lambda a: a[:, :1]),
        ("brier", lambda a: a * np.nan),
        ("placement_products", lambda a: a + np.triu(np.ones(a.shape))),
        ("placement_sums", lambda a: a[:1]),
        ("placement_cases", lambda a: a * 1.0),
    ],
)
def test_a_misshapen_score_from_a_site_is_refused(name: str, change) -> None:  # type: ignore[no-untyped-def]
    cases = cases_of(8)
    score = score_of(cases)
    sums = PlacementSums.of([cases.scores["federated"]], [score.histogram], cases.labels, cases.patients)
    arrays = {**score.to_arrays(), **sums.to_arrays()}
    kind = PlacementSums if name.startswith("placement") else Score
    kind.from_arrays(arrays)
    with pytest.raises(FederationError):
        kind.from_arrays({**arrays, name: change(arrays[name])})
    del arrays[name]
    with pytest.raises(FederationError, match="missing"):
        kind.from_arrays(arrays)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_judgement_survives_json_to_the_last_bit(classes: int) -> None:
    import json

    names = tuple(f"c{i}" for i in range(classes))
    judgement = judgement_of({"a": cases_of(1, classes), "b": cases_of(2, classes)}, names)
    text = json.dumps(judgement.to_json(), allow_nan=False)
    again = Judgement.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    for site in ("a", "b"):
        assert_same(again.own[site], judgement.own[site], rtol=0)
    with pytest.raises(ConfigError, match="not a judgement"):
        Judgement.from_json({"models": ["federated"]})
