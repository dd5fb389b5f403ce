"""Runs of a segmentation over real sites in this process, from SEG files to tables."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fedai_server.following import follow
from fedai_server.runs import RunDatabase
from fedai_server.server_app import conduct
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from flwr.app import Error
from outlined_sites import make_outlined, outline_study
from post_office import Answer, PostOffice, Site

from fedai import wire
from fedai.cli.app import run
from fedai.events import Judged, RoundClosed, RunEnded
from fedai.outline_judgement import OutlineJudgement
from fedai.record import read_judgement, read_outlines
from fedai.wire import Task

SITES = ("north", "east", "south")
STUDY = outline_study(
    sites=list(SITES), rounds={"quorum": 2, "grace_s": 2, "deadline_s": 60, "waiting_s": 60},
    training={"rounds": 1, "checkpoint": {"choose": "best", "by": "validation_dice"}},
    judgement={"local_models": True},
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    folder = tmp_path_factory.mktemp("outlined")
    return {name: make_outlined(folder, 25, name, seed=n)[0] for n, name in enumerate(SITES, 1)}


def run_at(homes: dict[str, SiteHome], folder: Path, broken: str = "", kind: str = "") -> Path:
    """The registry's folder of a run in which one site fails at one kind of task."""

    def script(name: str) -> Any:
        bench = Bench(homes[name], STUDY, lambda: True)

        def answer(task: Task) -> Answer:
            if (name, task.kind) == (broken, kind):
                return Error(wire.ERROR_NUMBER, "DATA 0123456789ab")
            return bench.answer(task, 1)

        return answer

    folder.mkdir(exist_ok=True)
    runs = RunDatabase(folder / "runs.sqlite")
    registry = folder / "registry" / runs.plan(STUDY)
    conduct(PostOffice({name: Site(script(name)) for name in SITES}), STUDY, registry.name, runs, registry)
    return registry


@pytest.fixture(scope="module")
def finished(homes: dict[str, SiteHome], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def registry(
    homes: dict[str, SiteHome], finished: dict[str, Path], tmp_path_factory: Any, quick: None
) -> Path:
    """Of one run for all tests that only look at it."""
    if "run" not in finished:
        finished["run"] = run_at(homes, tmp_path_factory.mktemp("run"))
    return finished["run"]


def test_a_run_goes_from_masks_to_a_judgement_of_every_model_at_every_site(registry: Path) -> None:
    record = json.loads((registry / "record.json").read_text())
    assert (record["state"], record["reason"]) == ("finished", "")
    (closed,) = record["rounds"]
    assert set(closed["validation"]) == set(SITES)
    assert all(set(told) == {"loss", "dice", "cases"} for told in closed["validation"].values())
    judgement = read_outlines(registry)
    assert judgement is not None
    assert judgement.models == ("federated", "local:east", "local:north", "local:south")
    tested = sum(cohort["splits"]["test"]["cases"] for cohort in record["cohorts"].values())
    assert judgement.merged("federated").found.sum() == tested
    assert set(judgement.marks) == set(SITES)


def test_the_checkpoint_may_be_chosen_by_dice_on_validation_cases(registry: Path) -> None:
    chosen = json.loads((registry / "record.json").read_text())["chosen"]
    assert (chosen["round"], chosen["by"], chosen["is_best"]) == (1, "validation_dice", True)
    assert 0 <= chosen["value"] <= 1
    assert set(chosen["sites"]) <= set(SITES)


def test_what_the_tables_and_the_report_say_is_the_judgement(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(registry), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    judgement = read_outlines(registry)
    assert judgement is not None
    (pooled,) = told["models"]["federated"]["pooled"]
    assert pooled["dice"] == judgement.merged("federated").means[0, 0]
    assert {one["measure"] for one in told["differences"]} == {"dice", "nsd", "hd95_mm", "area_error_mm2"}
    assert run(["compare", str(registry)]) == 0
    text = capsys.readouterr().out
    low, high = pooled["dice_ci95"]
    assert f"{pooled['dice']:.3f} ({low:.3f} to {high:.3f})" in text
    page = tmp_path / "report.html"
    assert run(["report", str(registry), "--out", str(page), "--csv", str(tmp_path / "numbers.csv")]) == 0
    assert f"mean Dice of {pooled['dice']:.3f}" in page.read_text()
    for word in ("ROC", "AUROC", "Brier", "<script"):
        assert word not in page.read_text()
    assert f"federated,,pooled,lesion,dice,{pooled['dice']!r}" in (tmp_path / "numbers.csv").read_text()


def test_a_run_leaves_as_a_crate_with_a_card_of_its_model(registry: Path, tmp_path: Path) -> None:
    """What a server wrote is all that they need."""
    assert run(["run", "crate", str(registry), "--out", str(tmp_path / "run.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "run.zip") as crate:
        card = json.loads(crate.read("model-card.json"))
        assert b"Reporting checklists" in crate.read("report.html")
    judgement = read_outlines(registry)
    assert judgement is not None
    dice = judgement.merged("federated").means[0, 0]
    assert card["Evaluation"]["lesion, all sites: mean (95% CI)"]["Dice"].startswith(f"{dice:.3f} (")
    assert set(card["Training data"]["cases"]) == set(SITES)


def test_a_second_run_at_the_same_sites_is_compared_with_the_first(
    homes: dict[str, SiteHome], registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same study gives the same models, and the replicates' weights are the same: nothing differs."""
    other = run_at(homes, tmp_path).rename(tmp_path / "again")
    page = tmp_path / "both.html"
    assert run(["report", str(registry), str(other), "--out", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["comparison"]
    assert told["against"] == f"{registry.name}/federated"
    (dice,) = [
        one for one in told["differences"]
        if (one["b"], one["measure"], one["cases_of"]) == ("again/federated", "dice", "pooled")
    ]  # fmt: skip
    assert (dice["difference"], dice["se"]) == (0.0, None)
    assert "compared with" in page.read_text()
    assert page.read_text().count("round by round") == 2


def test_it_can_be_followed_to_its_judgement(registry: Path) -> None:
    runs = RunDatabase(registry.parents[1] / "runs.sqlite")
    events = list(follow(runs, registry.parent, registry.name))
    (closed,) = [event for event in events if isinstance(event, RoundClosed)]
    assert set(closed.numbers) == set(SITES)
    assert all({"validation_loss", "validation_dice"} <= set(told) for told in closed.numbers.values())
    (found,) = [event for event in events if isinstance(event, Judged)]
    judgement = read_outlines(registry)
    assert judgement is not None
    merged = judgement.merged("federated")
    assert found.numbers["federated"]["all"] == {
        "dice_lesion": pytest.approx(merged.means[0, 0]), "cases_lesion": merged.cases[0, 0],
    }  # fmt: skip
    assert set(found.numbers["local:east"]) == {"all", *SITES}
    assert isinstance(events[-1], RunEnded)


def test_what_is_of_scores_is_refused_plainly(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["compare", str(registry), "--margin", "0.05"], "--margin is of an AUROC"),
        (["compare", str(registry), "--against", "nobody"], "there is no model 'nobody'"),
        (["compare", str(registry), str(registry)], "a run is named twice"),
        (["run", "matrix", str(registry)], "is for classifications alone"),
    ):
        assert run(words) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(Exception, match="is for classifications alone"):
        read_judgement(registry)


@pytest.mark.parametrize("kind", ["score", "place"])
def test_a_site_that_fails_in_the_judgement_is_left_out_of_it_and_named(
    kind: str, homes: dict[str, SiteHome], tmp_path: Path
) -> None:
    registry = run_at(homes, tmp_path, "south", kind)
    judgement = OutlineJudgement.from_json(json.loads((registry / "judgement.json").read_text()))
    assert (set(judgement.sites), judgement.left_out) == ({"north", "east"}, {"south": "DATA 0123456789ab"})
    record = json.loads((registry / "record.json").read_text())
    assert record["state"] == "finished"
