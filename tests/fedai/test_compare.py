from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from federations import Cases, draw_cases, judgement_of, raw_auroc

from fedai.compare import compare
from fedai.errors import FederationError
from fedai.judgement import Judgement
from fedai.metrics import BINS, bin_scores
from fedai.results import FEDERATED, MEAN_OF_LOCAL, POOLED, Comparison
from fedai.tables import spell_p, tables

SKILL = {"federated": 1.8, "local:north": 1.0, "local:east": 0.8, "centralised": 1.9}
BINARY = ("normal", "nodule")
THREE = ("hand", "chest", "head")


def draw_federation(classes: int = 2, seed: int = 1, patients: int = 60) -> dict[str, Cases]:
    rng = np.random.default_rng(seed)
    return {s: draw_cases(rng, s, patients, skill=SKILL, classes=classes) for s in ("north", "east")}


@pytest.fixture(scope="module")
def binary() -> Comparison:
    return compare(judgement_of(draw_federation(), BINARY))


@pytest.fixture(scope="module")
def three() -> Comparison:
    return compare(judgement_of(draw_federation(3), THREE))


def test_every_model_is_judged_pooled_and_at_every_site(binary: Comparison) -> None:
    sites = draw_federation()
    for model in binary.models:
        assert set(model.sites) == {"north", "east"}
        for site, result in model.sites.items():
            cases = sites[site]
            p = bin_scores(cases.scores[model.name])[:, 1] / BINS
            assert result.auroc.value == pytest.approx(raw_auroc(p, cases.labels == 1))
            assert result.cases == len(cases.labels)
            assert result.patients == 60
            assert result.classes[0].positives == cases.labels.sum()
        assert model.pooled.cases == sum(len(c.labels) for c in sites.values())
        assert model.pooled.patients == 120


def test_intervals_hold_their_values_and_pooling_narrows_them(binary: Comparison) -> None:
    for model in binary.models:
        for result in (model.pooled, *model.sites.values()):
            for measure in (result.auroc, result.classes[0].sensitivity, result.classes[0].specificity):
                assert measure.value is not None
                assert measure.ci95 is not None
                assert measure.ci95[0] < measure.value < measure.ci95[1]
        widths = [np.subtract(*(r.auroc.ci95 or (0, 0))[::-1]) for r in (model.pooled, *model.sites.values())]
        assert widths[0] < np.mean(widths[1:])


def test_the_mean_of_local_models_is_compared_in_pairs(binary: Comparison) -> None:
    found = next(d for d in binary.differences if d.b == MEAN_OF_LOCAL and d.cases_of == POOLED)
    value = {m.name: m.pooled.auroc.value or 0 for m in binary.models}
    expected = value["federated"] - (value["local:north"] + value["local:east"]) / 2
    assert found.difference == pytest.approx(expected)
    assert found.se is not None
    low, high = found.ci95 or (0, 0)
    assert (low + high) / 2 == pytest.approx(expected)
    assert 1.96 < (high - low) / 2 / found.se < 2.05  # t, with some 60 degrees of freedom
    unpaired = [m.pooled.auroc.ci95 or (0, 0) for m in binary.models[:2]]
    assert found.se < np.hypot(*[(high - low) / 3.92 for low, high in unpaired])


def test_federated_is_compared_with_every_other_model_everywhere(binary: Comparison) -> None:
    asked = {(d.b, d.cases_of) for d in binary.differences}
    others = {MEAN_OF_LOCAL, "local:north", "local:east", "centralised"}
    assert asked == {(b, c) for b in others for c in (POOLED, "north", "east")}
    assert {d.a for d in binary.differences} == {FEDERATED}


def test_the_json_has_the_shape_that_the_demo_prints(binary: Comparison) -> None:
    data = json.loads(json.dumps(binary.to_json(), allow_nan=False))
    assert [m["site"] for m in data["local"]] == ["north", "east"]
    for model in (*data["local"], data["federated"], data["centralised"]):
        low, high = model["pooled"]["ci95"]
        assert low < model["pooled"]["auroc"] < high
        assert set(model["sites"]) == {"north", "east"}
        assert {"sensitivity", "specificity", "brier", "cases", "patients", "positives"} <= set(
            model["pooled"]
        )
    assert data["differences"][0]["b"] == MEAN_OF_LOCAL
    assert data["others"] == {}


def test_many_classes_are_reported_one_by_one_and_as_their_mean(three: Comparison) -> None:
    data = json.loads(json.dumps(three.to_json(), allow_nan=False))
    pooled = data["federated"]["pooled"]
    assert [c["class"] for c in pooled["classes"]] == list(THREE)
    assert pooled["auroc"] == pytest.approx(np.mean([c["auroc"] for c in pooled["classes"]]))
    assert pooled["averaged"] == list(THREE)
    assert {d["class"] for d in data["differences"]} == {"macro", *THREE}


def single_class_at_east(classes: int) -> Judgement:
    sites = draw_federation(classes)
    east = sites["east"]
    keep = east.labels == 0
    sites["east"] = Cases(
        {m: s[keep] for m, s in east.scores.items()},
        east.labels[keep],
        [p for p, k in zip(east.patients, keep, strict=True) if k],
    )
    return judgement_of(sites, BINARY if classes == 2 else THREE)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_site_with_one_class_has_nulls_and_the_pooled_values_stand(classes: int) -> None:
    comparison = compare(single_class_at_east(classes))
    data = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert data["federated"]["sites"]["east"]["auroc"] is None
    assert data["federated"]["sites"]["east"]["ci95"] is None
    assert data["federated"]["sites"]["north"]["auroc"] is not None
    assert data["federated"]["pooled"]["ci95"] is not None
    assert not [d for d in data["differences"] if d["cases_of"] == "east"]
    assert tables(comparison)


def test_one_patient_at_a_site_gives_values_without_intervals() -> None:
    sites = draw_federation()
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])
    sites["east"] = Cases(dict.fromkeys(SKILL, scores), np.array([0, 1, 0, 1]), ["only"] * 4)
    comparison = compare(judgement_of(sites, BINARY))
    east = comparison.models[0].sites["east"]
    assert east.auroc.value == 1.0
    assert east.auroc.ci95 == (pytest.approx(0.025), 1.0)
    assert all(d.ci95 is None for d in comparison.differences if d.cases_of == "east")
    json.dumps(comparison.to_json(), allow_nan=False)


def test_a_model_with_one_output_for_all_has_no_interval() -> None:
    sites = draw_federation()
    for cases in sites.values():
        cases.scores["local:east"] = np.full((len(cases.labels), 2), 0.5)
    found = compare(judgement_of(sites, BINARY)).model("local:east")
    assert found is not None
    assert found.pooled.auroc.value == 0.5
    assert found.pooled.auroc.ci95 is None
    assert found.pooled.bound == 0.5


def test_a_run_without_local_models_or_reference_has_no_differences() -> None:
    sites = {
        n: Cases({"federated": c.scores["federated"]}, c.labels, c.patients)
        for n, c in draw_federation().items()
    }
    data = compare(judgement_of(sites, BINARY)).to_json()
    assert (data["local"], data["centralised"], data["differences"]) == ([], None, [])


def test_a_judgement_that_does_not_fit_together_is_refused() -> None:
    judgement = judgement_of(draw_federation(), BINARY)
    with pytest.raises(FederationError, match="belong together"):
        replace(judgement, models=BINARY)
    with pytest.raises(FederationError, match="lacks a model"):
        replace(judgement, models=(*judgement.models[:3], "other"))
    with pytest.raises(FederationError, match="joint calls don't belong together"):
        replace(judgement, calls={})


def test_a_comparison_rebuilt_from_json_prints_the_same_table(binary: Comparison) -> None:
    stored = json.loads(json.dumps(judgement_of(draw_federation(), BINARY).to_json()))
    assert tables(compare(Judgement.from_json(stored))) == tables(binary)


@pytest.mark.parametrize("classes", [2, 3])
def test_tables_are_rectangular_and_name_every_model(
    classes: int, binary: Comparison, three: Comparison
) -> None:
    made = tables(binary if classes == 2 else three)
    titles = " ".join(table.title for table in made)
    for part in ("All sites together", "Calibration", "at each site", "as a sample", "Differences", "Calls"):
        assert (part in titles) == (part != "as a sample" or classes == 2)
    for table in made:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert all(isinstance(cell, str) for row in table.rows for cell in row)
    assert [row[0] for row in made[0].rows] == list(SKILL)


@pytest.mark.parametrize(("p", "text"), [(0.00001, "<0.001"), (0.0123, "0.012"), (0.5, "0.50"), (None, "–")])
def test_p_is_printed_as_journals_do(p: float | None, text: str) -> None:
    assert spell_p(p) == text
