from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federations import Cases, draw_cases, judgement_of
from runs import draw_record

from fedai.cli.app import run as fedai
from fedai.compare import compare
from fedai.errors import ConfigError
from fedai.joining import join
from fedai.judgement import Judgement
from fedai.results import MEAN_OF_LOCAL, POOLED, Comparison

MODELS = {"federated": 1.5, "local:north": 1.0, "centralised": 1.55, "local:east": 0.9}
ALIKE = {"federated": 1.5, "local:north": 1.0, "centralised": 1.52, "local:east": 1.1}
BINARY, THREE = ("normal", "nodule"), ("hand", "chest", "head")


def draw_federation(classes: int, seed: int = 0, patients: int = 150) -> dict[str, Cases]:
    rng = np.random.default_rng(seed)
    skill = {f"a/{m}": d for m, d in MODELS.items()} | {f"b/{m}": d for m, d in ALIKE.items()}
    return {s: draw_cases(rng, s, patients, skill=skill, classes=classes) for s in ("north", "east")}


def part_of(sites: dict[str, Cases], run: str) -> dict[str, Cases]:
    return {
        site: Cases(
            {m.removeprefix(f"{run}/"): s for m, s in c.scores.items() if m.startswith(f"{run}/")},
            c.labels,
            c.patients,
        )
        for site, c in sites.items()
    }


def runs_of(sites: dict[str, Cases], classes: tuple[str, ...] = BINARY) -> dict[str, Judgement]:
    return {run: judgement_of(part_of(sites, run), classes) for run in ("a", "b")}


@pytest.mark.parametrize("classes", [BINARY, THREE])
def test_models_of_two_runs_differ_as_if_one_run_had_judged_all(classes: tuple[str, ...]) -> None:
    """Values to the last digit, and standard errors as near as a thousand replicates come."""
    sites = draw_federation(len(classes))
    joined = compare(join(runs_of(sites, classes)), against="a/federated")
    whole = compare(judgement_of(sites, classes), against="a/federated")
    assert [m.pooled for m in joined.models] == [m.pooled for m in whole.models]
    assert [m.sites for m in joined.models] == [m.sites for m in whole.models]
    ratios = []
    for ours, exact in zip(joined.differences, whole.differences, strict=True):
        assert (ours.a, ours.b, ours.cases_of, ours.of) == (exact.a, exact.b, exact.cases_of, exact.of)
        assert ours.difference == pytest.approx(exact.difference, abs=1e-12)
        ratio = (ours.se or 0) / (exact.se or 1)
        if ours.b.startswith("a/") or ours.b == MEAN_OF_LOCAL:
            assert ratio == pytest.approx(1, rel=1e-9)
        else:
            ratios.append(ratio)
    assert np.abs(np.array(ratios) - 1).max() < 0.12
    assert np.abs(np.mean(ratios) - 1) < 0.03


def test_calls_of_two_runs_are_compared_without_knowing_which_cases_differ() -> None:
    sites = draw_federation(2, seed=3)
    joined = compare(join(runs_of(sites)), against="a/federated")
    whole = compare(judgement_of(sites, BINARY), against="a/federated")
    for ours, exact in zip(joined.calls, whole.calls, strict=True):
        assert ours.difference == exact.difference
        if ours.b.startswith("a/"):
            assert ours == exact or ours.p_adjusted != exact.p_adjusted
        else:
            assert (ours.a_only, ours.b_only) == (None, None)
            assert ours.p == pytest.approx(exact.p, abs=0.05)


def test_the_same_model_in_two_runs_differs_by_nothing() -> None:
    sites = part_of(draw_federation(2), "a")
    joined = compare(join({"one": judgement_of(sites, BINARY), "two": judgement_of(sites, BINARY)}),
                     against="one/federated")  # fmt: skip
    found = [d for d in joined.differences if d.b == "two/federated"]
    assert [(d.difference, d.se, d.p) for d in found] == [(0.0, None, None)] * 3


def test_three_runs_are_joined_too() -> None:
    sites = draw_federation(2)
    runs = runs_of(sites)
    joined = compare(join({**runs, "c": runs["a"]}), against="b/federated")
    other = {d.b: d for d in joined.differences if d.cases_of == POOLED}
    assert other["a/centralised"].se == pytest.approx(other["c/centralised"].se, rel=1e-6)
    assert len(joined.models) == 12


def changed(judgement: Judgement, site: str, **marks: str) -> Judgement:
    return replace(judgement, marks={**judgement.marks, site: {**judgement.marks[site], **marks}})


def test_runs_that_are_not_of_the_same_cases_are_refused_with_every_reason() -> None:
    runs = runs_of(draw_federation(2, patients=30))
    other = changed(changed(runs["b"], "north", test_cases="0" * 64), "east", test_labels="0" * 64)
    with pytest.raises(ConfigError) as caught:
        join({"a": runs["a"], "b": other})
    assert "a and b: at north the test cases differ" in caught.value.message
    assert "a and b: at east the labels of the test cases differ" in caught.value.message


def test_runs_with_other_label_definitions_thresholds_or_sites_are_refused() -> None:
    sites = part_of(draw_federation(2, patients=30), "a")
    base = judgement_of(sites, BINARY)
    others = {
        "label definitions differ: normal, nodule and normal, mass": judgement_of(sites, ("normal", "mass")),
        "the thresholds differ: 0.5 and 0.3": judgement_of(sites, BINARY, 0.3),
        "the thresholds of their decision curves differ": judgement_of(sites, BINARY, 0.5, (0.1,)),
        "test cohorts differ: east is part of a alone": judgement_of({"north": sites["north"]}, BINARY),
        "at north it isn't known on which cases": replace(base, marks={}),
        "at north the patients' weights were drawn by different software": changed(base, "north", draws="0"),
    }
    for told, other in others.items():
        with pytest.raises(ConfigError, match="can't be compared") as caught:
            join({"a": base, "b": other})
        assert told in caught.value.message


def write_run(folder: Path, judgement: Judgement, **record: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({**draw_record(), **record}))
    (folder / "judgement.json").write_text(json.dumps(judgement.to_json()))
    return folder


def test_the_command_compares_runs_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = draw_federation(2, patients=40)
    folders = [write_run(tmp_path / run, judgement) for run, judgement in runs_of(sites).items()]
    assert fedai(["compare", *map(str, folders), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["against"] == "a/federated"
    assert set(told["others"]) == {f"{run}/{model}" for run in "ab" for model in MODELS}
    assert told["others"]["b/federated"]["worst_site"]["site"] in ("north", "east")
    assert {c["on"] for c in told["calls"]} == {"all", "positives", "negatives"}
    assert fedai(["compare", *map(str, folders), "--against", "b/centralised", "--margin", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "No worse by 0.1" in printed
    assert "Worst site" in printed
    assert fedai(["compare", *map(str, folders), "--against", "federated"]) == 2
    assert "models: a/federated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            {"cohorts": {"north": {"overlapping_patients": 2}}},
            "2 test patients of north are training patients",
        ),
        (
            {"references": {"centralised": {"split_plan": "other/0/0.15/0.25"}}},
            "centralised was trained on another split",
        ),
    ],
)
def test_models_that_were_trained_on_test_patients_are_refused(
    record: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "a", runs_of(draw_federation(2, patients=30))["a"], **record)
    assert fedai(["compare", str(folder)]) == 2
    assert told in capsys.readouterr().err


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_run(tmp_path / "a", runs_of(draw_federation(2, patients=30))["a"]))
    assert fedai(["compare", folder, folder]) == 2
    assert "named twice" in capsys.readouterr().err


def test_the_studys_margin_is_used(tmp_path: Path) -> None:
    from fedai.cli.compare import compare_runs

    study = {**draw_record()["study"], "judgement": {"margin": 0.2}}
    judgement = runs_of(draw_federation(2, patients=60))["a"]
    found: Comparison = compare_runs([str(write_run(tmp_path / "a", judgement, study=study))], tmp_path)
    assert found.margin == 0.2
    d = next(d for d in found.differences if d.b == "centralised" and d.cases_of == POOLED)
    assert d.non_inferior is not None
    assert (d.non_inferior < 0.025) == ((d.ci95 or (0, 0))[0] > -0.2) or d.non_inferior > 0.005
