from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from studies import SMALL, draw_images, merged, small_study

from fedai.cli.app import run
from fedai.demo import crowd
from fedai.demo.crowd import InventedSite, draw_pool, invent_sites, shrink
from fedai.errors import ConfigError, TrainingError
from fedai.local import Cases
from fedai.simulate import RoundClosed, Simulated, simulate
from fedai.study import Study
from fedai.weights import Weights

PLAIN = {"optimizer": {"name": "SGD", "momentum": 0.0}}


class Drawn:
    """A site with noise and squares."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.visits = name, seed, 0

    def cases(self, split: str) -> Cases:
        self.visits += split == "train"
        images, labels = draw_images(8, seed=self.seed if split == "train" else 100 + self.seed)
        return Cases(images, labels, tuple(f"p{number}" for number in range(8)))

    def may_go_on(self) -> bool:
        return True


def three() -> list[Drawn]:
    return [Drawn(name, seed) for seed, name in enumerate(("north", "east", "south"))]


def bits(done: Simulated) -> bytes:
    return b"".join(array.tobytes() for array in done.weights.arrays().values())


def test_every_site_is_visited_in_every_round_and_scored(tmp_path: Path) -> None:
    sites, told = three(), list[RoundClosed]()
    done = simulate(small_study(), sites, tmp_path, tell=told.append)
    assert [site.visits for site in sites] == [2, 2, 2]
    assert told == list(done.rounds)
    assert [(closed.number, closed.sites) for closed in told] == [(1, 3), (2, 3)]
    assert set(done.scores) == {"north", "east", "south"}
    assert int(done.pooled.histogram.counts.sum()) == 24
    assert list(tmp_path.iterdir()) == []  # FedAvg leaves nothing at a site


def test_the_order_of_the_sites_changes_no_bit(tmp_path: Path) -> None:
    study = small_study(network={"normalization": "as_built"})
    one = simulate(study, three(), tmp_path / "a")
    other = simulate(study, three()[::-1], tmp_path / "b")
    assert bits(one) == bits(other)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_worker_processes_change_no_bit_and_find_what_was_left_at_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.setattr(crowd, "POOL_PATIENTS", 12)
    network = {"normalization": "as_built"}
    study = small_study(strategy={"name": "SCAFFOLD"}, network=network, training=PLAIN)
    named, sites = invent_sites(study, 3, 4, tmp_path)
    alone = simulate(named, sites, tmp_path / "alone")
    together = simulate(named, sites, tmp_path / "together", workers=2)
    assert bits(alone) == bits(together)
    assert {name: score.tolist() for name, score in alone.scores.items()} == {
        name: score.tolist() for name, score in together.scores.items()
    }


def test_what_a_site_sends_can_be_changed_on_its_way(tmp_path: Path) -> None:
    def nothing(site: str, update: Weights) -> Weights:
        return Weights(np.zeros_like(update.parameters), update.buffers, update.counters)

    still = simulate(small_study(), three(), tmp_path, tamper=nothing)
    once = simulate(small_study(training={"rounds": 1}), three(), tmp_path, tamper=nothing)
    assert bits(still) == bits(once)
    assert bits(still) != bits(simulate(small_study(), three(), tmp_path))


def test_cyclic_visits_one_site_in_each_round(tmp_path: Path) -> None:
    sites = three()
    study = small_study(strategy={"name": "Cyclic"}, training={"rounds": 4})
    done = simulate(study, sites, tmp_path)
    assert [site.visits for site in sites] == [2, 1, 1]
    assert [closed.sites for closed in done.rounds] == [1] * 4


def test_a_site_that_may_not_go_on_ends_the_simulation(tmp_path: Path) -> None:
    sites = three()
    sites[1].may_go_on = lambda: False  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="stopped"):
        simulate(small_study(), sites, tmp_path)


# ---------------------------------------------------------------- invented sites


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    images, labels = draw_pool(2, (16, 16), seed=3, patients=24)
    np.savez(tmp_path / "pool.npz", images=images, labels=labels)
    return tmp_path / "pool.npz"


def test_an_invented_site_shows_the_same_cases_at_every_visit_and_others_than_its_neighbour(
    pool: Path,
) -> None:
    site, other = (InventedSite(name, pool, 10, 2, seed=1) for name in ("site-0001", "site-0002"))
    first, again = site.cases("train"), site.cases("train")
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert first.images.shape == (10, 1, 16, 16)
    assert set(first.labels.tolist()) == {0, 1}
    assert not np.array_equal(first.images, other.cases("train").images)


def test_test_cases_are_of_other_patients_than_training_cases(pool: Path) -> None:
    sites = [InventedSite(f"site-{number:04d}", pool, 30, 2, seed=1) for number in range(8)]
    trained = {patient for site in sites for patient in site.cases("train").patients}
    tested = {patient for site in sites for patient in site.cases("test").patients}
    assert not trained & tested


def test_a_picture_shrinks_to_the_mean_of_areas_in_its_window() -> None:
    picture = np.zeros((512, 512), np.uint16)
    picture[:, 256:] = 4000
    small = shrink(picture, (16, 16))
    assert small.shape == (16, 16)
    assert (small[:, :8] == 0).all()
    assert (small[:, 8:] == 255).all()


def test_fewer_cases_than_classes_are_refused(tmp_path: Path) -> None:
    study = small_study(task={"classes": ["a", "b", "c"]})
    with pytest.raises(ConfigError, match="one of each of 3 classes"):
        invent_sites(study, 2, 2, tmp_path)


# ---------------------------------------------------------------- the command


def write_study(folder: Path, **changes: Any) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(merged(SMALL, changes)))
    return str(path)


def test_the_command_writes_a_model_and_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "POOL_PATIENTS", 12)
    out = tmp_path / "out"
    words = ["simulate", write_study(tmp_path), "--sites", "4", "--cases", "5", "--out", str(out), "--json"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert sorted(told["site_auroc"]) == [f"site-000{number}" for number in range(1, 5)]
    assert [closed["number"] for closed in told["rounds"]] == [1, 2]
    assert json.loads((out / "simulation.json").read_text())["sha256"] == told["sha256"]
    assert json.loads((out / "manifest.json").read_text())["sha256"] == told["sha256"]
    assert run(words) == 2  # the folder is there
    assert "is there already" in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("words", [[], ["--home", "x", "--sites", "3"], ["--home", "x", "--workers", "2"]])
def test_either_homes_or_a_number_of_sites(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", write_study(tmp_path), "--out", str(tmp_path / "out"), *words]) == 2
    assert "either homes or a number of sites" in capsys.readouterr().err


def test_fewer_sites_than_the_strategy_needs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = [f"s{number}" for number in range(5)]
    study = write_study(tmp_path, strategy={"name": "Krum"}, sites=sites, rounds={"quorum": 5})
    assert run(["simulate", study, "--out", str(tmp_path / "out"), "--sites", "4"]) == 2
    assert "Krum needs 5 sites" in capsys.readouterr().err


def test_a_study_of_invented_sites_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "POOL_PATIENTS", 12)
    named, sites = invent_sites(small_study(), 1001, 4, tmp_path)
    assert isinstance(named, Study)
    assert named.sites == tuple(site.name for site in sites)
    assert named.sites[-1] == "site-1001"


# ---------------------------------------------------------------- the study's choice


def test_the_checkpoint_that_is_judged_is_the_one_that_the_rule_chooses(tmp_path: Path) -> None:
    rate = {"name": "SGD", "learning_rate": 1.5, "momentum": 0.9}  # so that it doesn't only get better
    training = {"rounds": 5, "optimizer": rate, "seed": 3}
    last = [simulate(small_study(training={**training, "rounds": n}), three(), tmp_path) for n in range(1, 6)]
    training["checkpoint"] = {"choose": "best", "by": "validation_auroc"}
    done = simulate(small_study(training=training), three(), tmp_path)
    number = done.chosen["round"]
    assert number < 5
    assert bits(done) == bits(last[number - 1])
    assert done.last.parameters.tobytes() == last[4].weights.parameters.tobytes()
    assert done.chosen["value"] == max(done.chosen["values"].values()) > done.chosen["last_value"]


def test_training_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    def still(site: str, update: Weights) -> Weights:
        return Weights(np.zeros_like(update.parameters), update.buffers, update.counters)

    study = small_study(training={"rounds": 9, "early_stopping": {"patience": 2}})
    done = simulate(study, three(), tmp_path, tamper=still)
    assert len(done.rounds) == 4
    assert done.reason == "stopped early after round 4 of 9: no better validation_loss since round 1"
