from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federations import raw_covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from score_sites import Rows, draw_site, draw_sites, rows_of, write_csv
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from fedai.agreed_bins import Bins, agree
from fedai.cli.app import run
from fedai.errors import ConfigError, DataError
from fedai.results import Measure, worst
from fedai.score_answers import SiteRows
from fedai.score_comparison import FEWEST, compare_scores
from fedai.score_files import SiteScores
from fedai.score_tables import tables, to_json

SEEDS = st.integers(0, 2**32 - 1)


def probabilities(sites: list[SiteScores]) -> list[SiteScores]:
    return [replace(s, scores=1 / (1 + np.exp(-s.scores))) for s in sites]


def covariance_of(rows: Rows, a: int, b: int) -> float:
    return raw_covariance(rows.scores[:, a], rows.scores[:, b], rows.positive, rows.patients)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_values_se_and_p_are_those_of_the_raw_rows_in_reference_libraries(seed: int) -> None:
    sites = draw_sites(seed, 90, 60, 70)
    found, rows = compare_scores(sites), rows_of(sites)
    for i, model in enumerate(found.models):
        auroc = roc_auc_score(rows.positive, rows.scores[:, i])
        assert abs((model.auroc.value or 0) - auroc) <= model.bound + 1e-12
        assert model.bound < 0.001
        average = average_precision_score(rows.positive, rows.scores[:, i])
        assert abs((model.auprc.value or 0) - average) <= model.auprc_bound + 1e-12
        assert (model.se or 0) ** 2 == pytest.approx(covariance_of(rows, i, i), rel=0.01)
    pair = found.pairs[0]
    variance = covariance_of(rows, 0, 0) + covariance_of(rows, 1, 1) - 2 * covariance_of(rows, 0, 1)
    assert (pair.found.se or 0) ** 2 == pytest.approx(variance, rel=0.01)
    z = pair.found.difference / np.sqrt(variance)
    assert pair.found.p == pytest.approx(2 * norm.sf(abs(z)), abs=0.005)


def test_bins_that_hold_many_cases_move_variance_and_p_by_little() -> None:
    sites = draw_sites(3, 2500, 2500, prevalence=0.15)
    found, rows = compare_scores(sites), rows_of(sites)
    assert 0 < found.models[0].bound < 0.001
    variance = _variance(rows, [1, 0])
    assert (found.models[0].se or 0) ** 2 == pytest.approx(variance, rel=0.01)
    difference = found.pairs[0].found
    assert (difference.se or 0) ** 2 == pytest.approx(_variance(rows, [1, -1]), rel=0.01)


def _variance(rows: Rows, weights: list[int]) -> float:
    """Obuchowski's variance of a contrast by sorting, for many rows without ties."""
    names, numbers = np.unique(rows.patients, return_inverse=True)
    n, m = (~rows.positive).sum(), rows.positive.sum()
    up, down = np.zeros(len(names)), np.zeros(len(names))
    for weight, s in zip(weights, rows.scores.T, strict=True):
        above = np.searchsorted(np.sort(s[~rows.positive]), s[rows.positive]) / n
        beneath = 1 - np.searchsorted(np.sort(s[rows.positive]), s[~rows.positive]) / m
        up += weight * np.bincount(numbers[rows.positive], above - above.mean(), len(names)) / m
        down += weight * np.bincount(numbers[~rows.positive], beneath - above.mean(), len(names)) / n
    sizes = [len(np.unique(numbers[side])) for side in (rows.positive, ~rows.positive)] + [len(names)]
    factors = [size / (size - 1) for size in sizes]
    return float(factors[0] * up @ up + factors[1] * down @ down + 2 * factors[2] * up @ down)


def test_calls_and_brier_are_those_of_scikit_learn() -> None:
    sites = probabilities(draw_sites(5, 60, 80))
    found, rows = compare_scores(sites, thresholds={"m0": 0.7}), rows_of(sites)
    first, second = found.models
    called = rows.scores[:, 0] >= 0.7
    assert first.sensitivity.value == pytest.approx(recall_score(rows.positive, called))
    assert first.specificity.value == pytest.approx(recall_score(~rows.positive, ~called))
    assert first.brier.value == pytest.approx(brier_score_loss(rows.positive, rows.scores[:, 0]), abs=1e-12)
    right, wrong = (called & rows.positive).sum(), (called & ~rows.positive).sum()
    benefit = (right - wrong * 0.7 / 0.3) / len(called)
    assert first.net_benefit.value == pytest.approx(benefit, abs=1e-12)
    assert second.sensitivity.value is None
    assert second.net_benefit.value is None
    for measure in (first.sensitivity, first.specificity, first.net_benefit, first.brier, first.auprc):
        assert measure.ci95 is not None
        assert measure.ci95[0] < (measure.value or 0) < measure.ci95[1]


def test_holms_adjustment_is_statsmodels() -> None:
    found = compare_scores(draw_sites(7, 80, 80, skill=(1.6, 1.5, 1.2, 1.0)))
    ps = [pair.found.p for pair in found.pairs]
    assert len(ps) == 6
    expected = multipletests(ps, method="holm")[1]
    assert [pair.p_adjusted for pair in found.pairs] == pytest.approx(list(expected), abs=1e-12)


def test_the_intervals_of_brier_and_auprc_agree_with_a_patient_bootstrap() -> None:
    sites = probabilities(draw_sites(11, 150, 150))
    model, rows = compare_scores(sites).models[0], rows_of(sites)
    rng, names = np.random.default_rng(1), np.unique(rows.patients)
    where = {name: np.flatnonzero(np.asarray(rows.patients) == name) for name in names}
    drawn = []
    for _ in range(400):
        at = np.concatenate([where[name] for name in rng.choice(names, len(names))])
        y, s = rows.positive[at], rows.scores[at, 0]
        drawn.append((average_precision_score(y, s), np.mean((s - y) ** 2)))
    for measure, values in zip((model.auprc, model.brier), np.array(drawn).T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert measure.ci95 == pytest.approx((low, high), abs=0.2 * (high - low))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_answers_of_sites_add_up_to_the_answer_of_their_rows_in_any_order(seed: int) -> None:
    sites = probabilities(draw_sites(seed, 12, 9, 15))
    rows = [SiteRows(site) for site in sites]
    whole = SiteRows(_together(sites))
    bins = [agree(functools.partial(whole.count, i))[0] for i in range(2)]
    thresholds = {"m0": 0.5, "m1": 0.4}
    firsts = [r.first(bins, thresholds) for r in rows]
    expected = whole.first(bins, thresholds)
    seconds = [r.second(bins, expected.histograms) for r in rows]
    at_once = whole.second(bins, expected.histograms)
    for order in itertools.permutations(range(3)):
        a, b, c = (firsts[i] for i in order)
        for merged in (a + b + c, a + (b + c)):
            for ours, theirs in zip(merged.counts, expected.counts, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            for ours, theirs in zip(merged.calls, expected.calls, strict=True):
                assert ours is not None
                assert theirs is not None
                np.testing.assert_array_equal(ours.squares, theirs.squares)
            for ours, theirs in zip(merged.briers, expected.briers, strict=True):
                assert ours is not None
                assert theirs is not None
                np.testing.assert_allclose(ours.squares, theirs.squares)
        x, y, z = (seconds[i] for i in order)
        for both in (x + y + z, x + (y + z)):
            np.testing.assert_allclose(both.precisions, at_once.precisions)
            np.testing.assert_allclose(both.placements.products, at_once.placements.products)


def _together(sites: list[SiteScores]) -> SiteScores:
    starts = np.cumsum([0, *(s.patients for s in sites)])
    numbers = np.concatenate([s.numbers + start for s, start in zip(sites, starts[:-1], strict=True)])
    rows = rows_of(sites)
    return SiteScores("all", sites[0].models, rows.scores, rows.positive, numbers, int(starts[-1]))


def test_nothing_that_a_site_answers_has_an_entry_per_case_or_patient() -> None:
    site = SiteRows(draw_sites(2, 50)[0])
    bins = [agree(functools.partial(site.count, i))[0] for i in range(2)]
    first = site.first(bins, {"m0": 0.0})
    second = site.second(bins, first.histograms)
    calls, brier = first.calls[0], first.briers[0]
    assert brier is None
    assert calls is not None
    assert second.precisions.shape == (2,)
    assert second.placements.products.shape == (4, 4)
    assert [calls.counts.shape, calls.squares.shape] == [(1, 4), (1, 2, 3)]
    assert [h.counts.shape for h in first.histograms] == [(1, 2, len(b.starts)) for b in bins]


def test_the_order_of_files_and_any_rising_change_of_scores_change_nothing() -> None:
    sites = draw_sites(9, 50, 40, 30)
    plain, turned = to_json(compare_scores(sites)), to_json(compare_scores(sites[::-1]))
    stretched = to_json(compare_scores([replace(s, scores=np.exp(3 * s.scores) - 50) for s in sites]))
    for other in (turned, stretched):
        for name, model in plain["models"].items():
            assert other["models"][name]["auroc"] == pytest.approx(model["auroc"], abs=1e-12)
            assert other["models"][name]["ci95"] == pytest.approx(model["ci95"], abs=1e-9)
        assert other["comparisons"][0]["p"] == pytest.approx(plain["comparisons"][0]["p"], abs=1e-9)


def test_a_site_with_few_patients_or_one_class_has_no_interval_and_says_what_it_lacks() -> None:
    sites = draw_sites(4, 60, 60)
    rng = np.random.default_rng(0)
    small = draw_site(rng, "small", 9)
    healthy = replace(draw_site(rng, "healthy", 40, prevalence=0.0))
    found = compare_scores([*sites, small, healthy])
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert data["models"]["m0"]["sites"]["small"]["ci95"] is None
    assert data["models"]["m0"]["sites"]["healthy"] == {"auroc": None, "ci95": None}
    assert data["models"]["m0"]["worst_site"]["site"] in ("s0", "s1")
    assert data["models"]["m0"]["across_sites"]["left_out"] == ["small", "healthy"]
    assert "0 patients with a positive case, 10 are needed" in data["sites"]["healthy"]["lacks"]
    assert any(note.startswith("healthy: no intervals of its own") for note in data["notes"])
    assert "healthy" not in data["comparisons"][0]["sites"]
    assert tables(found)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, 0.1])
def test_too_few_patients_together_are_refused_with_the_number_needed(prevalence: float) -> None:
    with pytest.raises(DataError, match=f"{FEWEST} are needed"):
        compare_scores(draw_sites(8, 12, 13, prevalence=prevalence, most_images=1))


def test_models_that_order_all_cases_alike_differ_by_nothing_and_have_no_p() -> None:
    sites = [replace(s, scores=s.scores[:, [0, 0]]) for s in draw_sites(6, 60, 60)]
    pair = compare_scores(sites, margin=0.05).pairs[0]
    assert (pair.found.difference, pair.found.ci95, pair.found.p, pair.p_adjusted) == (0.0, None, None, None)
    assert pair.superior is None


def test_perfect_separation_has_an_honest_lower_end() -> None:
    sites = [replace(s, scores=s.positive[:, None] * np.ones((1, 2))) for s in draw_sites(6, 60, 60)]
    model = compare_scores(sites).models[0]
    assert model.auroc.value == 1.0
    assert model.auroc.ci95 is not None
    assert 0.8 < model.auroc.ci95[0] < model.auroc.ci95[1] == 1.0
    assert model.across is None


def test_margin_and_reference_give_one_sided_tests_against_one_model() -> None:
    sites = draw_sites(13, 150, 150, skill=(1.6, 1.55, 0.4))
    found = compare_scores(sites, margin=0.1, against="m0")
    assert [(pair.a, pair.b) for pair in found.pairs] == [("m1", "m0"), ("m2", "m0")]
    alike, worse = found.pairs
    assert alike.non_inferior is not None
    assert worse.non_inferior is not None
    assert [test.shown for test in alike.non_inferior] == [True, True]
    assert [test.shown for test in worse.non_inferior] == [False, True]
    assert worse.superior == "m0"
    low, high = worse.found.ci95 or (0, 0)
    assert low < high < -0.1


@pytest.mark.parametrize(
    "options", [{"margin": 0.0}, {"margin": 1.5}, {"against": "x"}, {"thresholds": {"x": 1}}]
)
def test_options_that_fit_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        compare_scores(draw_sites(1, 40, 40), **options)  # type: ignore[arg-type]


def test_the_command_prints_one_json_object_with_what_a_paper_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = draw_sites(17, 60, 50, 40)
    paths = [str(write_csv(site, tmp_path)) for site in sites]
    assert run(["compare", "--scores", *paths, "--threshold", "m1=0.5", "--margin", "0.05", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is True
    assert set(data["models"]) == {"m0", "m1"}
    low, high = data["models"]["m0"]["ci95"]
    assert low < data["models"]["m0"]["auroc"] < high
    assert {"a", "b", "difference", "se", "ci95", "p", "p_adjusted"} <= set(data["comparisons"][0])
    assert data["models"]["m1"]["sensitivity"] is not None
    assert data["models"]["m0"]["sensitivity"] is None
    assert run(["compare", *paths[1:], "--scores", paths[0]]) == 0
    lines = capsys.readouterr().out
    for told in ("AUROC (95% CI)", "Worst site", "p adjusted", "Hartung-Knapp", "counts as two patients"):
        assert told in lines


def test_the_command_refuses_with_stable_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [str(write_csv(site, tmp_path)) for site in draw_sites(1, 4, 3)]
    assert run(["compare", "--scores", *few, "--json"]) == 3
    assert "are needed" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert run(["compare", "--scores", str(tmp_path / "none.csv"), "--json"]) == 2
    assert run(["compare", "--margin", "0.05"]) == 2
    assert run(["compare"]) == 2
    assert run(["compare", "a", "b"]) == 2
    assert run(["compare", "--scores", few[0], "--threshold", "high"]) == 2


def test_a_count_of_bins_starts_with_all_cases() -> None:
    site = SiteRows(draw_sites(3, 20)[0])
    counts = site.count(0, Bins.first())
    assert counts.shape == (2, 256)
    assert counts.sum() == len(draw_sites(3, 20)[0].positive)


def test_a_run_given_for_a_file_of_scores_is_told_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "registry" / "cxr-nodule-1"
    run_folder.mkdir(parents=True)
    (run_folder / "record.json").write_text("{}")
    for name in ("cxr-nodule-1", str(run_folder)):
        assert run(["compare", "--scores", name, "--home", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert f"--scores takes files of scores, one CSV per site; {name} is a run" in said
        assert f"next: fedai compare {name}" in said
    assert run(["compare", "--scores", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_the_worst_site_is_that_of_the_lowest_value_with_or_without_an_interval() -> None:
    sites = {"east": Measure(0.455, None), "north": Measure(1.0, (0.59, 1.0)), "west": Measure(None, None)}
    assert worst(sites) == ("east", Measure(0.455, None))
    assert worst({"west": Measure(None, None)}) is None
