from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from scipy import stats

from fedai.errors import ConfigError
from fedai.meta_analysis import random_effects
from fedai.outline_judgement import OutlineJudgement
from fedai.outline_results import QUANTILES, OutlineComparison, compare_outlines
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.outline_tables import as_csv, tables
from fedai.outlines import MEASURES
from fedai.signed_ranks import REACH, bin_differences

MODELS = ("federated", "local:a", "local:b")


def draw_site(
    name: str, patients: int, seed: int, images: int = 1
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values [models, cases, 1, V] that lie together in a patient, what was found, and patients."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), images)
    shared = rng.normal(0, 0.08, (patients, 1, 4))[owners]
    level = np.array([0.8, 0.7, 4.0, 20.0])
    values = np.stack(
        [
            level + (shared + rng.normal(-0.02 * m, 0.05, (len(owners), 1, 4))) * [1, 1, 10, 300]
            for m in range(3)
        ]
    )
    return values, np.full((len(owners), 1), 3), [f"{name}{owner}" for owner in owners]


def judgement_of(*sites: tuple[np.ndarray, np.ndarray, list[str]]) -> OutlineJudgement:
    named = {f"site-{n}": site for n, site in enumerate(sites)}
    scores = {
        name: {m: OutlineScore.of(v, found, patients) for m, v in zip(MODELS, values, strict=True)}
        for name, (values, found, patients) in named.items()
    }
    links = {
        name: OutlineLinks.of(list(v), patients, name.encode()) for name, (v, _, patients) in named.items()
    }
    return OutlineJudgement(MODELS, ("lesion",), 2.0, scores, links)


def difference(comparison: OutlineComparison, b: str, measure: str, where: str = "pooled") -> object:
    (found,) = [d for d in comparison.differences if (d.b, d.measure, d.cases_of) == (b, measure, where)]
    return found


def test_with_one_image_per_patient_a_difference_is_the_paired_t_test() -> None:
    sites = [draw_site("a", 14, 1), draw_site("b", 20, 2)]
    comparison = compare_outlines(judgement_of(*sites))
    values = np.concatenate([site[0] for site in sites], axis=1)
    for v, measure in enumerate(MEASURES):
        found = difference(comparison, "local:a", measure)
        true = stats.ttest_rel(values[0, :, 0, v], values[1, :, 0, v])
        interval = true.confidence_interval()
        assert found.p == pytest.approx(true.pvalue)
        assert found.ci95 == pytest.approx((interval.low, interval.high))
        mean = difference(comparison, "mean of local", measure)
        other = stats.ttest_rel(values[0, :, 0, v], values[1:, :, 0, v].mean(axis=0))
        assert mean.p == pytest.approx(other.pvalue)


def test_means_have_the_intervals_of_the_rows() -> None:
    values, found, patients = draw_site("a", 25, 3)
    result = compare_outlines(judgement_of((values, found, patients))).models[0].pooled[0]
    for name in ("hd95_mm", "area_error_mm2"):
        rows = values[0, :, 0, MEASURES.index(name)]
        interval = stats.ttest_1samp(rows, 0).confidence_interval()
        assert result.means[name].value == pytest.approx(rows.mean())
        assert result.means[name].ci95 == pytest.approx((interval.low, interval.high))
    dice = values[0, :, 0, 0]
    mean, se = dice.mean(), stats.sem(dice)
    logit = np.log(mean / (1 - mean)) + np.array([-1, 1]) * stats.t.ppf(0.975, 24) * se / (mean * (1 - mean))
    assert result.means["dice"].ci95 == pytest.approx(tuple(1 / (1 + np.exp(-logit))))


def test_images_of_one_patient_do_not_make_an_interval_narrower() -> None:
    values, found, patients = draw_site("a", 15, 4)
    often = (np.repeat(values, 5, axis=1), np.repeat(found, 5, axis=0), list(np.repeat(patients, 5)))
    once, again = (compare_outlines(judgement_of(site)) for site in ((values, found, patients), often))
    for name in MEASURES:
        assert again.models[0].pooled[0].means[name].ci95 == pytest.approx(
            once.models[0].pooled[0].means[name].ci95
        )
        assert difference(again, "local:b", name).p == pytest.approx(difference(once, "local:b", name).p)


def test_models_with_other_undefined_cases_are_compared_as_the_ratio_of_the_rows() -> None:
    """The variance is that of the two means' difference, whichever cases each is defined on."""
    values, found, patients = draw_site("a", 30, 5, images=2)
    values[0, ::7, 0, 2] = values[1, 1::5, 0, 2] = np.nan
    found_of = difference(compare_outlines(judgement_of((values, found, patients))), "local:a", "hd95_mm")
    rows = values[:2, :, 0, 2].reshape(2, 30, 2)
    means = np.nanmean(values[:2, :, 0, 2], axis=1)
    parts = np.nansum(rows - means[:, None, None], axis=2) / np.isfinite(rows).sum(axis=(1, 2))[:, None]
    influence = parts[0] - parts[1]
    assert found_of.difference == pytest.approx(means[0] - means[1])
    assert found_of.se == pytest.approx(np.sqrt((influence**2).sum() * 30 / 29))


def test_few_patients_have_values_and_no_interval() -> None:
    comparison = compare_outlines(judgement_of(draw_site("a", 9, 6), draw_site("b", 12, 7)))
    few, enough = (comparison.models[0].sites[site][0].means["dice"] for site in ("site-0", "site-1"))
    assert few.value is not None
    assert few.ci95 is None
    assert enough.ci95 is not None
    assert difference(comparison, "local:a", "dice", "site-0").p is None


def test_p_is_adjusted_over_the_models_of_one_measure_and_structure() -> None:
    comparison = compare_outlines(judgement_of(draw_site("a", 40, 8)))
    ps = [d for d in comparison.differences if (d.cases_of, d.measure) == ("pooled", "dice")]
    assert len(ps) == 3
    assert max(d.p_adjusted for d in ps) >= max(d.p for d in ps)
    assert min(d.p_adjusted for d in ps) == pytest.approx(min(1.0, 3 * min(d.p for d in ps)))


@pytest.mark.parametrize(("against", "other"), [("federated", "local:b"), ("local:b", "federated")])
def test_wilcoxons_test_is_of_patients_pooled_and_at_each_site(against: str, other: str) -> None:
    """Whichever of two models comes first; over sites of which one has few patients, and images in threes."""
    sites = [draw_site("a", 24, 1, images=3), draw_site("b", 9, 2)]
    comparison = compare_outlines(judgement_of(*sites), against=against)
    a, b = MODELS.index(against), MODELS.index(other)
    rows = [(values[a] - values[b])[:, 0, 0] for values, _, _ in sites]
    means = [rows[0].reshape(24, 3).mean(axis=1), rows[1]]
    for where, values in (("site-0", means[0]), ("pooled", np.concatenate(means))):
        ranks = difference(comparison, other, "dice", where).ranks
        binned = stats.wilcoxon(bin_differences(values) - REACH, method="asymptotic")
        assert ranks.p == pytest.approx(binned.pvalue, abs=1e-12)
        assert ranks.p == pytest.approx(stats.wilcoxon(values, method="asymptotic").pvalue, abs=0.01)
        assert ranks.patients + ranks.alike == len(values)
        assert np.sign(ranks.effect) == np.sign(np.median(values))
        family = [d.ranks for d in comparison.differences if d.cases_of == where and d.ranks]
        assert min(one.p_adjusted for one in family) == 2 * min(one.p for one in family)
    assert difference(comparison, other, "dice", "site-1").ranks.p is None
    assert difference(comparison, other, "nsd").ranks is None
    if against == "federated":
        assert difference(comparison, "mean of local", "dice").ranks is None


def test_sites_as_a_sample_of_hospitals_are_the_random_effects_of_the_rows() -> None:
    """Of the logits of sites' means, with the variance of a mean by patient; a site with few patients is left
    out.
    """
    sites = [
        draw_site("a", 24, 1, images=2),
        draw_site("b", 31, 2),
        draw_site("c", 15, 3),
        draw_site("d", 9, 4),
    ]
    model = compare_outlines(judgement_of(*sites)).models[1]
    ((effects, left_out),) = model.across
    assert left_out == ("site-3",)
    logits, variances = [], []
    for (values, _, _), images in zip(sites[:3], (2, 1, 1), strict=True):
        by_patient = values[1, :, 0, 0].reshape(-1, images).mean(axis=1)
        mean = by_patient.mean()
        logits.append(np.log(mean / (1 - mean)))
        variances.append((stats.sem(by_patient) / (mean * (1 - mean))) ** 2)
    true = random_effects(logits, variances)
    assert effects is not None
    assert true is not None
    assert effects.estimate == pytest.approx(true.estimate)
    assert effects.ci95 == pytest.approx(true.ci95)
    assert effects.prediction95 == pytest.approx(true.prediction95)
    weights = 1 / (np.array(variances) + effects.tau**2)
    assert effects.estimate == pytest.approx(np.average(logits, weights=weights))
    told = model.to_json()["across_sites"]["lesion"]
    assert told["estimate"] == pytest.approx(1 / (1 + np.exp(-true.estimate)))
    lowest = min((values[1, :, 0, 0].mean(), n) for n, (values, _, _) in enumerate(sites))
    assert model.worst(0)[0] == f"site-{lowest[1]}"


def test_percentiles_are_those_of_the_rows_to_half_a_bin() -> None:
    sites = [draw_site("a", 24, 1, images=2), draw_site("b", 31, 2)]
    result = compare_outlines(judgement_of(*sites)).models[0].pooled[0]
    for v, (measure, half) in enumerate(zip(MEASURES, (0.0025, 0.0025, 0.25, 5.0), strict=True)):
        rows = np.concatenate([values[0, :, 0, v] for values, _, _ in sites])
        true = np.quantile(rows, QUANTILES, method="averaged_inverted_cdf")
        assert np.abs(np.array(result.quantiles[measure]) - true).max() <= half + 1e-9
        assert result.to_json()[f"{measure}_quantiles"]["0.5"] == result.median(measure)


def test_a_judgement_comes_back_from_its_file_and_a_damaged_one_is_refused() -> None:
    judgement = judgement_of(draw_site("a", 14, 1), draw_site("b", 12, 2))
    text = json.dumps(judgement.to_json())
    again = OutlineJudgement.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert compare_outlines(again).to_json() == compare_outlines(judgement).to_json()
    for part in ("models", "scores", "links", "tolerance_mm"):
        data = copy.deepcopy(json.loads(text))
        del data[part]
        with pytest.raises(ConfigError, match="not a judgement"):
            OutlineJudgement.from_json(data)
    data = json.loads(text)
    data["scores"]["site-0"]["federated"]["outline_sums"][0][0] = 1e9
    with pytest.raises(ConfigError, match="not a judgement"):
        OutlineJudgement.from_json(data)


def test_the_tables_hold_a_row_for_each_model_site_and_difference() -> None:
    comparison = compare_outlines(judgement_of(draw_site("a", 14, 1), draw_site("b", 9, 2)))
    models, found, sites, differences, ranks = tables(comparison)  # one site isn't enough for a sample
    assert [len(table.rows) for table in (models, found, sites)] == [3, 3, 6]
    assert len(differences.rows) == 3 * 3 * len(MEASURES)
    assert len(ranks.rows) == 3 * 2
    assert ranks.rows[-1][3:] == ("9", "0", ranks.rows[-1][5], "–", "–"), "nine patients"
    assert all(len(row) == len(table.header) for table in tables(comparison) for row in table.rows)
    assert "–" in sites.rows[3][4], "nine patients"
    lines = as_csv(comparison).splitlines()
    assert len(lines) == 1 + 2 * 3 * 3 * len(MEASURES) + len(differences.rows) + len(ranks.rows)


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="there is no model 'nobody'"):
        compare_outlines(judgement_of(draw_site("a", 14, 1)), against="nobody")
