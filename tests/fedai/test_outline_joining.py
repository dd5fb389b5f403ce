from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import draw_judgement, draw_record
from scipy import stats

from fedai.cli.app import run as fedai
from fedai.errors import ConfigError
from fedai.outline_joining import join_outlines
from fedai.outline_judgement import OutlineJudgement
from fedai.outline_results import compare_outlines
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.wire import MARKS

GRIDS = {"a": (64, 64), "b": (64, 64), "c": (64, 64)}
NAMES = [f"{run}/{model}" for run in "ab" for model in ("federated", "local:north", "local:east")]


def draw(site: str, patients: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values [6 models, cases, 2 structures, V] that lie together in a patient; HD95 has gaps."""
    rng = np.random.default_rng(seed)
    owners = np.sort(rng.integers(0, patients, 2 * patients))
    shared = rng.normal(0, 0.08, (patients, 2, 4))[owners]
    gaps = np.array([0, 0.03, 0.05, 0.01, 0.2, 0.06])[:, None, None, None]
    values = np.array([0.75, 0.7, 4.0, 20.0]) + shared - gaps + rng.normal(0, 0.05, (6, *shared.shape))
    values[..., :2] = values[..., :2].clip(0, 1)
    values[:, rng.random(len(owners)) < 0.2, :, 2] = np.nan
    return values, np.full((len(owners), 2), 3), [f"{site}{owner:03}" for owner in owners]


SITES = {"north": draw("n", 90, 1), "east": draw("e", 70, 2)}


def judged(models: list[str], rows: slice) -> OutlineJudgement:
    """As if one run had these models, which are those `rows` of the values."""
    return OutlineJudgement(
        tuple(models), ("lesion", "lung"), 2.0,
        {site: {m: OutlineScore.of(v, found, names) for m, v in zip(models, values[rows], strict=True)}
         for site, (values, found, names) in SITES.items()},
        {site: OutlineLinks.of(list(values[rows]), names, site.encode())
         for site, (values, _, names) in SITES.items()},
        {site: {mark: f"{mark} of {site}" for mark in MARKS} for site in SITES},
    )  # fmt: skip


def runs() -> dict[str, OutlineJudgement]:
    own = [name.partition("/")[2] for name in NAMES[:3]]
    return {"a": judged(own, slice(0, 3)), "b": judged(own, slice(3, 6))}


def test_models_of_two_runs_differ_as_if_one_run_had_judged_all() -> None:
    """Values to the last digit, and standard errors as near as a thousand replicates come, however far apart
    the models' means are."""
    joined = compare_outlines(join_outlines(runs(), GRIDS), against="a/federated")
    whole = compare_outlines(judged(NAMES, slice(0, 6)), against="a/federated")
    assert joined.models == whole.models
    assert len(joined.differences) == 3 * 2 * 4 * 6
    ratios = []
    for ours, exact in zip(joined.differences, whole.differences, strict=True):
        assert (ours.a, ours.b, ours.cases_of, ours.of, ours.measure) == (
            exact.a, exact.b, exact.cases_of, exact.of, exact.measure,
        )  # fmt: skip
        assert ours.difference == exact.difference
        if ours.b.startswith("b/"):
            ratios.append((ours.se or 0) / (exact.se or 1))
            assert ours.ranks is None
        else:
            assert (ours.se, ours.p) == (exact.se, exact.p)
            assert (ours.ranks is None) == (exact.ranks is None)
            if ours.ranks and exact.ranks:
                assert replace(ours.ranks, p_adjusted=None) == replace(exact.ranks, p_adjusted=None)
    assert np.abs(np.array(ratios) - 1).max() < 0.12
    assert np.abs(np.mean(ratios) - 1) < 0.03


def test_the_same_model_in_two_runs_differs_by_nothing() -> None:
    one, other = runs()["a"], runs()["a"]
    joined = compare_outlines(join_outlines({"a": one, "b": other}, GRIDS), against="a/federated")
    found = [d for d in joined.differences if d.b == "b/federated"]
    assert [(d.difference, d.se, d.p) for d in found] == [(0.0, None, None)] * len(found)


def test_all_that_leaves_of_two_runs_may_be_the_same_where_wilcoxons_test_is_not() -> None:
    """Why there is no such test between runs. One model's Dice, dealt out to the patients in two ways: what a
    site sends of each run is the same to the last digit, and so are the products with the other run's, all
    that replicates can tell (they are normal with these as their covariance). Ranks of differences are not.
    """
    one, other = (
        np.sort(np.random.default_rng(n).integers(*of, 24)) for n, of in ((1, (90, 150)), (2, (87, 147)))
    )
    dealt = np.random.default_rng(3).permuted(np.tile(other, (40_000, 1)), axis=1)
    apart = one - dealt
    sums = (stats.rankdata(np.abs(apart), axis=1) * np.sign(apart)).sum(axis=1)
    _, groups = np.unique(dealt @ one, return_inverse=True)  # alike in the only sum that dealing changes
    most, least = np.full(groups.max() + 1, -np.inf), np.full(groups.max() + 1, np.inf)
    np.maximum.at(most, groups, sums)
    np.minimum.at(least, groups, sums)
    inside = np.flatnonzero(groups == (most - least).argmax())
    ways = [dealt[inside[sums[inside].argmax()]], dealt[inside[sums[inside].argmin()]]]
    patients, found = [f"p{n:02}" for n in range(24)], np.full((24, 1), 3)
    scores, links, ps = [], [], []
    for way in ways:
        pair = [np.tile(dice[:, None, None] / 200 + 0.001, (1, 1, 4)) for dice in (one, way)]
        scores.append(OutlineScore.of(pair[1], found, patients, 3).to_arrays())
        links.append(OutlineLinks.of(pair, patients, b"key", 3))
        ps.append(stats.wilcoxon(one - way, method="asymptotic").pvalue)
    for name, array in scores[0].items():
        assert np.allclose(array, scores[1][name], rtol=1e-12), name
    assert np.allclose(links[0].products, links[1].products, rtol=1e-12)
    assert min(ps) < 0.01 < 0.2 < max(ps)


def test_between_runs_the_missing_test_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(tmp_path / run, judgement) for run, judgement in runs().items()]
    assert fedai(["compare", *folders]) == 0
    text = capsys.readouterr().out
    assert "no Wilcoxon test between models of different runs" in text
    rows = [line for line in text.splitlines() if "a/federated − b/federated" in line and line.endswith("–")]
    assert len(rows) == 2, "a row of dashes for each structure"
    assert fedai(["compare", *folders, "--json"]) == 0
    for d in json.loads(capsys.readouterr().out)["differences"]:
        is_between = d["b"].startswith("b/") and d["measure"] == "dice"
        assert ("wilcoxon_lacks" in d) == is_between
        assert not (is_between and d["wilcoxon"])
    assert fedai(["compare", folders[0]]) == 0
    assert "no Wilcoxon test" not in capsys.readouterr().out


def test_three_runs_are_joined_too() -> None:
    joined = compare_outlines(join_outlines({**runs(), "c": runs()["a"]}, GRIDS), against="b/federated")
    pooled = {
        d.b: d.se for d in joined.differences if (d.cases_of, d.of, d.measure) == ("pooled", "lung", "dice")
    }
    assert pooled["a/local:east"] == pytest.approx(pooled["c/local:east"], rel=1e-6)
    assert pooled["mean of local"] is not None
    assert len(joined.models) == 9


def test_runs_of_other_structures_tolerances_grids_cases_or_sites_are_refused_with_every_reason() -> None:
    base = runs()["a"]
    marks = {**base.marks, "north": {**base.marks["north"], "test_cases": "0"}}
    marks["east"] = {**base.marks["east"], "test_labels": "0"}
    other = replace(base, structures=("lesion", "heart"), tolerance_mm=3.0, marks=marks)
    with pytest.raises(ConfigError, match="can't be compared") as caught:
        join_outlines({"a": base, "b": other}, {"a": (64, 64), "b": (128, 96)})
    for told in (
        "a and b: structures differ: lesion, lung and lesion, heart",
        "a and b: the tolerances differ: 2 mm and 3 mm",
        "a and b: outlines were measured on other pixel grids: 64x64 and 128x96",
        "a and b: at north the test cases differ",
        "a and b: at east the labels of the test cases differ",
    ):
        assert told in caught.value.message
    alone = replace(base, scores={"north": base.scores["north"]}, links={"north": base.links["north"]})
    with pytest.raises(ConfigError, match="test cohorts differ: east is part of a alone"):
        join_outlines({"a": base, "b": alone}, GRIDS)
    with pytest.raises(ConfigError, match="it isn't known on which cases"):
        join_outlines({"a": base, "b": replace(base, marks={})}, GRIDS)


def write_run(folder: Path, judgement: object, **record: object) -> str:
    folder.mkdir()
    study = {"name": "lesion", "preprocessing": {"image_size": [64, 64]}}
    (folder / "record.json").write_text(json.dumps({**draw_record(), "study": study, **record}))
    (folder / "judgement.json").write_text(json.dumps(judgement.to_json()))  # type: ignore[attr-defined]
    return str(folder)


def test_the_command_compares_runs_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_run(tmp_path / run, judgement) for run, judgement in runs().items()]
    assert fedai(["compare", *folders, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["against"], list(told["models"])) == ("a/federated", NAMES)
    expected = compare_outlines(join_outlines(runs(), GRIDS), against="a/federated").to_json()
    assert told == {"ok": True, **json.loads(json.dumps(expected))}
    assert fedai(["compare", *folders, "--against", "b/federated"]) == 0
    assert "b/federated − a/local:north" in capsys.readouterr().out
    other = write_run(tmp_path / "c", draw_judgement())
    assert fedai(["compare", *folders, other]) == 2
    assert "c is of a classification, a of a segmentation" in capsys.readouterr().err
    mixed = write_run(tmp_path / "d", runs()["b"], cohorts={"north": {"overlapping_patients": 2}})
    assert fedai(["compare", folders[0], mixed]) == 2
    assert "d: 2 test patients of north are training patients too" in capsys.readouterr().err
