from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_server.leaving_out import check_sites, facts_of
from fedai_server.runs import RunDatabase
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from fedai_site.permit import Permit
from flwr.app import Error
from hospitals import SITES, STUDY, Change, at, make_hospitals, run_of
from studies import merged, small_study

from fedai import wire
from fedai.cli.app import run as fedai
from fedai.cli.compare import joined_runs
from fedai.compare import compare
from fedai.errors import ConfigError, FederationError
from fedai.exports import models_of
from fedai.judgement import Judgement
from fedai.study import Study
from fedai.subgroup_results import subgroups_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def go_without(folder: Path, grid: Any, site: str, study: Study = STUDY) -> tuple[RunDatabase, Path]:
    runs, registry, go = run_of(folder, grid, study)
    for kind, fact in facts_of([site]):
        runs.add(registry.name, kind, fact)
    go()
    return runs, registry


def test_the_site_left_out_trains_nothing_and_judges_the_model_of_the_others(
    hospitals: dict[str, SiteHome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path, at(hospitals, run_id=11))[2]()
    grid = at(hospitals, run_id=12)
    _runs, registry = go_without(tmp_path, grid, "south")
    assert [task.kind for task in grid.sites["south"].asked] == ["ready", "score", "place"]
    record = json.loads((registry / "record.json").read_text())
    assert (record["state"], record["without"]) == ("finished", ["south"])
    assert [fact["answered"] for fact in record["rounds"]] == [["east", "north"]] * 2
    assert record["models"] == ["federated"], "each site's own model is judged in the run of all"
    judgement = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    assert set(judgement.sites) == set(SITES)
    assert {m.name for m in models_of(registry)} >= {"federated"}

    both = [str(registry.parent / name) for name in ("small-1", "small-2")]
    assert fedai(["run", "matrix", *both, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in told["rows"]}
    assert rows["small-2/federated"]["without"] == ["south"]
    assert rows["small-1/federated"]["without"] == []
    assert rows["small-2/federated"]["values"] != rows["small-1/federated"]["values"]
    south = told["tested_at"].index("south")
    expected = compare(joined_runs(both, tmp_path)[1]).model("small-2/federated")
    assert expected is not None
    assert rows["small-2/federated"]["values"][south] == expected.sites["south"].auroc.value
    assert fedai(["run", "matrix", *both]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "small-2/federated without south" in line]
    assert line.count("[") == 1, "the cell of the site left out is marked"
    page = tmp_path / "both.html"
    assert fedai(["report", *both, "--out", str(page)]) == 0
    assert "small-2: Federated without south" in page.read_text()
    assert fedai(["report", both[1], "--out", str(page)]) == 2, "nothing is written over unasked"
    assert fedai(["report", both[1], "--out", str(page), "--force"]) == 0
    text = page.read_text()
    assert "The sites east and north trained one model together" in text
    assert "south took no part in the training" in text


def test_where_the_site_that_is_to_judge_is_not_ready_the_run_ends_before_any_training(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    no: dict[str, Change] = {"ready": lambda _: Error(wire.ERROR_NUMBER, "DATA 0123456789ab")}
    grid = at(hospitals, run_id=13, south=no)
    with pytest.raises(FederationError, match=r"judged there: south \(DATA 0123456789ab\)"):
        go_without(tmp_path, grid, "south")
    assert [task.kind for site in grid.sites.values() for task in site.asked] == ["ready"] * 3


@pytest.mark.parametrize("strategy", [{"name": "FedPer"}, {"name": "Ditto"}])
def test_a_site_is_not_left_out_where_each_one_has_a_part_of_the_model(
    hospitals: dict[str, SiteHome], tmp_path: Path, strategy: dict[str, str]
) -> None:
    study = small_study(strategy=strategy)
    with pytest.raises(ConfigError, match="leaves a part of the model at each site, and south"):
        go_without(tmp_path, at(hospitals, study, run_id=14), "south", study)


def test_only_sites_of_the_study_are_left_out_and_some_are_left_to_train() -> None:
    check_sites(["south", "east"], STUDY)
    with pytest.raises(ConfigError, match="--without west: the study doesn't name it"):
        check_sites(["west"], STUDY)
    with pytest.raises(ConfigError, match="leaves 0 sites to train"):
        check_sites(SITES, STUDY)


def test_a_run_tells_of_subgroups_where_the_policy_of_a_site_allows_it(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    """The invented scanners are of no maker on the list, so all cases are of one subgroup."""
    facts = json.loads(STUDY.canonical())
    study = Study.model_validate(merged(facts, {"judgement": {"subgroups": ["sex", "manufacturer"]}}))
    allowed = {
        "north": Permit(subgroups=("manufacturer",)),
        "east": Permit(subgroups=("sex", "manufacturer")),
    }
    benches = {s: Bench(hospitals[s], study, lambda: True, allowed.get(s, Permit())) for s in SITES}
    kinds: list[wire.TaskKind] = ["score", "place"]
    scripts = {s: dict.fromkeys(kinds, lambda task, b=b: b.answer(task, 15)) for s, b in benches.items()}
    _runs, registry, go = run_of(tmp_path, at(hospitals, study, run_id=15, **scripts), study)
    go()
    judgement = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    assert set(judgement.subgroups) == set(SITES)
    comparison = compare(judgement)
    assert subgroups_of(comparison, "sex", "federated") == {}, "it isn't known of anybody"
    found = subgroups_of(comparison, "manufacturer", "federated")
    assert list(found) == ["", "other"]
    assert found["other"].sites == ("east", "north")
    assert found["other"].cases == sum(
        int(judgement.scores[s]["federated"].calls.counts.sum()) for s in ("north", "east")
    )
    assert found["other"].auroc == found[""].auroc
    told = judgement.subgroups["south"]["federated"]
    assert not any(np.asarray(array).any() for one in told for array in one.to_arrays().values())
