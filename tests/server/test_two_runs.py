"""Two runs at the same real sites, from their messages to one comparison: FedAvg with each site's own model
and a centralised one, and FedBN; and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from browser import CHROMIUM, measure, requests_of
from fedai_server import rounds
from fedai_server.launch import put_references
from fedai_server.runs import RunDatabase
from fedai_server.server_app import conduct
from fedai_site.alone import train_alone
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from flwr.supercore.task_identity import TaskIdentity
from homes import add_patients, make_home
from post_office import PostOffice, Site
from studies import small_study

from fedai.cli.app import run as fedai
from fedai.study import Study
from fedai.wire import Reply, Task

SITES = ("north", "east", "south")
TIMES = {"rounds": {"grace_s": 2, "deadline_s": 60, "waiting_s": 60}, "training": {"rounds": 1}}
FEDAVG = small_study(**TIMES)
FEDBN = small_study(**TIMES, strategy={"name": "FedBN"}, judgement={"local_models": False})
OTHER_SPLIT = small_study(**TIMES, split={"seed": 5}, judgement={"local_models": False})


@dataclass
class Place:
    """Sites and a server's home."""

    homes: dict[str, SiteHome]
    folder: Path

    def run(self, study: Study, number: int, references: dict[str, Path] | None = None) -> str:
        """A run to its end; gives its folder."""
        runs = RunDatabase(self.folder / "runs.sqlite")
        name = runs.plan(study)
        registry = self.folder / "registry" / name
        weights = [(name, made / "weights.safetensors") for name, made in (references or {}).items()]
        put_references(registry / "references", weights)
        benches = {site: Bench(home, study, lambda: True) for site, home in self.homes.items()}
        scripts = {site: Site(partial(_answer, bench, number)) for site, bench in benches.items()}
        conduct(PostOffice(scripts), study, name, runs, registry)
        return str(registry)

    def centralised(self, study: Study) -> Path:
        out = self.folder / f"centralised-{study.sha256[:8]}"
        train_alone(list(self.homes.values()), study, out, may_go_on=lambda: True)
        return out


def _answer(bench: Bench, number: int, task: Task) -> Reply:
    return bench.answer(task, number)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("hospitals")
    homes = {name: make_home(folder, name, 28, first=28 * i) for i, name in enumerate(SITES)}
    return Place(homes, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module", autouse=True)
def quick() -> object:
    """Poll every few milliseconds; be some run's process, as Flower's messages ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "LOOK_AROUND_S", 0.02)
        patch.setattr(rounds, "SHORTEST_POLL_S", 0.005)
        patch.setattr(rounds, "LONGEST_POLL_S", 0.01)
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        yield


@pytest.fixture(scope="module")
def folders(place: Place, quick: object) -> list[str]:
    first = place.run(FEDAVG, 1, {"centralised": place.centralised(FEDAVG)})
    return [first, place.run(FEDBN, 2)]


def refusal(capsys: pytest.CaptureFixture[str], *folders: str) -> str:
    capsys.readouterr()
    assert fedai(["compare", *folders]) == 2
    return capsys.readouterr().err


def test_models_of_both_runs_are_compared_in_pairs(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert fedai(["compare", *folders, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    first = {"federated", "centralised", *(f"local:{s}" for s in SITES)}
    assert set(told["others"]) == {"small-2/federated", *(f"small-1/{model}" for model in first)}
    wanted = ("small-2/federated", "pooled")
    pair = next(d for d in told["differences"] if (d["b"], d["cases_of"]) == wanted)
    separate = [told["others"][f"small-{n}/federated"]["pooled"] for n in (1, 2)]
    assert pair["difference"] == pytest.approx(separate[0]["auroc"] - separate[1]["auroc"])
    assert pair["se"] is None or pair["se"] > 0


def test_their_report_is_written(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert fedai(["report", *folders, "--out", str(out), "--csv", str(tmp_path / "table.csv")]) == 0
    page = out.read_text(encoding="utf-8")
    for words in ("small-2: Federated", "small-1: All data in one place", "CLAIM 2024", "TRIPOD+AI"):
        assert words in page
    if CHROMIUM:
        assert requests_of(out, tmp_path) == ([], [])
        assert measure(out, tmp_path, 860)["faults"] == []


def test_a_reference_that_was_trained_on_another_split_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = small_study(**TIMES, judgement={"local_models": False})
    run = place.run(plain, 3, {"elsewhere": place.centralised(OTHER_SPLIT)})
    assert "elsewhere was trained on another split" in refusal(capsys, run)


def test_runs_before_and_after_new_patients_are_refused(
    place: Place, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_patients(place.homes["north"], tmp_path / "more", range(500, 512))
    said = refusal(capsys, folders[1], place.run(FEDBN, 5))
    assert "at north the test cases differ" in said
    assert "at east" not in said
