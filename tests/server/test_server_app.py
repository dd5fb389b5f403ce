from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fedai_server import server_app
from fedai_server.server_app import Interrupted
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from federation_processes import wait_for
from flwr.app import Error
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity
from hospitals import SITES, STUDY, Change, at, make_hospitals, run_of
from post_office import Answer
from replies_to import reply_to
from studies import small_study

from fedai import wire
from fedai.checkpoint import load_checkpoint, save_checkpoint
from fedai.compare import compare
from fedai.errors import ConfigError, FederationError, OutOfTime
from fedai.heads import make_head
from fedai.judgement import Judgement
from fedai.signatures import read_key, write_key
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import layout_of, pack
from fedai.wire import Task

LAYOUT = layout_of(build_network(small_study()))
pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def refused(code: str) -> Change:
    return lambda _: Error(wire.ERROR_NUMBER, f"{code} 0123456789ab")


def test_a_run_of_real_sites_goes_from_readiness_to_a_comparison(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals)
    _runs, registry, go = run_of(tmp_path, grid)
    go()
    record = json.loads((registry / "record.json").read_text())
    assert (record["state"], record["reason"]) == ("finished", "")
    assert [fact["answered"] for fact in record["rounds"]] == [sorted(SITES)] * 2
    assert record["models"] == ["federated", "local:east", "local:north", "local:south"]
    assert all(cohort["flow"]["used"] == 56 for cohort in record["cohorts"].values())
    judgement = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    cases = sum(cohort["splits"]["test"]["cases"] for cohort in record["cohorts"].values())
    told = compare(judgement).to_json()
    assert told["federated"]["pooled"]["cases"] == cases
    assert {local["site"] for local in told["local"]} == set(SITES)
    assert {site.asked[0].kind for site in grid.sites.values()} == {"ready"}


def test_a_ledger_that_went_back_is_told_in_the_record(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    write_key(tmp_path / "key")
    key, lines = read_key(tmp_path / "key"), iter((5, 6, 6, 4, *range(7, 99)))

    def sealed(task: Task) -> Answer:
        number = next(lines)
        reply = Bench(hospitals["north"], STUDY, lambda: True).answer(task, 2)
        return dataclasses.replace(reply, ledger=make_head(number, f"{number:064x}", key))

    kinds: list[wire.TaskKind] = ["ready", "train", "train_alone", "score"]
    runs, _registry, go = run_of(tmp_path, at(hospitals, north=dict.fromkeys(kinds, sealed)))
    go()
    record = runs.record("small-1")
    assert [head["lines"] for head in record["ledger_heads"]["north"]][:5] == [5, 6, 6, 4, 7]
    assert record["ledger_contradictions"] == {"north": ["4 lines, there were 6 before"]}
    assert runs.last_head("north") == record["ledger_heads"]["north"][-1]


def test_an_answer_whose_head_is_not_signed_is_refused(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    def forged(task: Task) -> Answer:
        head = {"lines": 1, "hash": "0" * 64, "key": "1" * 64, "signature": "2" * 128}
        return dataclasses.replace(
            Bench(hospitals["north"], STUDY, lambda: True).answer(task, 3), ledger=head
        )

    runs, _registry, go = run_of(tmp_path, at(hospitals, north={"ready": forged}))
    go()
    record = runs.record("small-1")
    assert "the ledger's head is not signed by its key" in record["refused"]["north"]
    assert record["ledger_heads"] == {}


def test_checkpoints_are_a_chain_from_the_seed_to_the_last_round(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    runs, registry, go = run_of(tmp_path, at(hospitals))
    go()
    network = build_network(STUDY)
    layout = layout_of(network)
    assert np.array_equal(
        load_checkpoint(registry / "round-0000", layout).parameters, pack(network, layout).parameters
    )
    manifests = [json.loads((registry / f"round-{n:04d}" / "manifest.json").read_text()) for n in range(3)]
    assert [manifest["parent"] for manifest in manifests] == ["", *(m["sha256"] for m in manifests[:-1])]
    assert [fact["checkpoint"] for fact in runs.record("small-1")["rounds"]] == [
        m["sha256"] for m in manifests[1:]
    ]
    assert {manifest["study"] for manifest in manifests} == {STUDY.sha256}


def test_the_mean_of_the_updates_moves_the_weights(hospitals: dict[str, SiteHome], tmp_path: Path) -> None:
    updates = {"north": (30, 1.0), "east": (10, 5.0), "south": (60, 0.0)}
    made_up = {
        name: {"train": lambda task, n=n, value=value: reply_to(task, STUDY, cases=n, value=value)}
        for name, (n, value) in updates.items()
    }
    _, registry, go = run_of(tmp_path, at(hospitals, **made_up))
    go()
    layout = layout_of(build_network(STUDY))
    before, after = (load_checkpoint(registry / f"round-000{n}", layout) for n in (0, 1))
    np.testing.assert_allclose(after.parameters - before.parameters, 0.8, atol=1e-6)


def test_a_site_that_refuses_is_named_and_the_rest_goes_on(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, south={"ready": refused("DATA")})
    runs, _, go = run_of(tmp_path, grid)
    go()
    record = runs.record("small-1")
    assert (record["state"], record["refused"]) == ("finished", {"south": "DATA 0123456789ab"})
    assert [task.kind for task in grid.sites["south"].asked] == ["ready"]


def test_too_few_ready_sites_end_the_run_with_their_codes(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    no = {"ready": refused("REFUSED")}
    _, registry, go = run_of(tmp_path, at(hospitals, south=no, east=no))
    with pytest.raises(OutOfTime, match=r"1 of 2 sites needed.*east \(REFUSED 0123456789ab\)"):
        go()
    record = json.loads((registry / "record.json").read_text())
    assert record["state"] == "failed"
    assert "1 of 2 sites" in record["reason"]


def test_a_round_below_the_quorum_ends_the_run_and_keeps_what_was_saved(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, south={"train": refused("TRAINING")}, east={"train": refused("TRAINING")})
    runs, registry, go = run_of(tmp_path, grid)
    with pytest.raises(OutOfTime, match="round 1 closed with 1 of 2 answers"):
        go()
    assert runs.get("small-1").state == "failed"
    assert (registry / "round-0000" / "weights.safetensors").is_file()
    assert not (registry / "round-0001").exists()


def test_a_site_without_a_local_model_of_its_own_is_judged_all_the_same(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    _runs, registry, go = run_of(tmp_path, at(hospitals, south={"train_alone": refused("TRAINING")}))
    go()
    judgement = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    assert judgement.models == ("federated", "local:east", "local:north")
    assert set(judgement.sites) == set(SITES)


def test_a_site_that_did_not_score_every_model_is_left_out_of_the_judgement(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    _runs, registry, go = run_of(tmp_path, at(hospitals, south={"score": refused("TRAINING")}))
    go()
    judgement = Judgement.from_json(json.loads((registry / "judgement.json").read_text()))
    assert set(judgement.sites) == {"north", "east"}
    assert judgement.left_out == {"south": "TRAINING 0123456789ab"}


def working(home: SiteHome, study: Study) -> Change:
    bench = Bench(home, study, lambda: True)
    return lambda task: bench.answer(task, 1)


class Clears:
    """A site's ledger of pooled histograms, as a site keeps it: a further pool may only be smaller."""

    def __init__(self, answer: Change) -> None:
        self.answer = answer
        self.pools: list[Any] = []

    def __call__(self, task: Task) -> Answer:
        pool = task.arrays["histograms"]
        assert all((pool <= before).all() for before in self.pools)
        self.pools.append(pool)
        return self.answer(task)


def judged(registry: Path) -> Judgement:
    return Judgement.from_json(json.loads((registry / "judgement.json").read_text()))


def test_a_site_that_drops_out_at_the_last_question_is_left_out_and_the_rest_asked_again(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    kept = Clears(working(hospitals["north"], STUDY))
    grid = at(hospitals, north={"place": kept}, south={"place": refused("TRAINING")})
    runs, registry, go = run_of(tmp_path, grid)
    go()
    judgement = judged(registry)
    assert set(judgement.sites) == {"north", "east"}
    assert judgement.left_out == {"south": "TRAINING 0123456789ab"}
    cases = sum(by_model["federated"].histogram.counts.sum() for by_model in judgement.scores.values())
    assert [len(kept.pools), int(kept.pools[1][0].sum())] == [2, cases]
    assert compare(judgement).to_json()["federated"]["pooled"]["cases"] == cases
    record = runs.record("small-1")
    assert record["left_out"] == {"south": "TRAINING 0123456789ab"}
    assert record["state"] == "finished"


def test_sites_that_drop_out_one_after_another_are_all_named(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = small_study(rounds={"grace_s": 2, "deadline_s": 30, "waiting_s": 30, "quorum": 1})
    answers = iter([working(hospitals["east"], study), refused("DATA")])
    grid = at(
        hospitals, study, south={"place": refused("TRAINING")}, east={"place": lambda t: next(answers)(t)}
    )
    runs, registry, go = run_of(tmp_path, grid, study)
    go()
    assert set(judged(registry).sites) == {"north"}
    assert set(runs.record("small-1")["left_out"]) == {"south", "east"}


def test_below_the_quorum_there_is_no_judgement_and_the_run_says_who_was_left_out(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    no = {"place": refused("TRAINING")}
    _, registry, go = run_of(tmp_path, at(hospitals, south=no, east=no))
    with pytest.raises(FederationError, match=r"1 of 2 sites needed linked.*east \(TRAINING 0123456789ab\)"):
        go()
    assert not (registry / "judgement.json").exists()


def test_a_round_that_can_no_longer_reach_its_quorum_closes_at_once(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    no: dict[str, Change] = {"train": refused("TRAINING")}
    grid = at(hospitals, south=no, east=no, north={"train": lambda _: None})
    _, _, go = run_of(tmp_path, grid)
    begun = time.monotonic()
    with pytest.raises(OutOfTime, match="round 1 closed with 0 of 2 answers"):
        go()
    assert time.monotonic() - begun < 15


def test_no_local_models_are_trained_where_the_study_wants_none(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    study = small_study(judgement={"local_models": False})
    grid = at(hospitals, study)
    runs, _registry, go = run_of(tmp_path, grid, study)
    go()
    assert runs.record("small-1")["models"] == ["federated"]
    assert "train_alone" not in {task.kind for site in grid.sites.values() for task in site.asked}


def test_a_stopped_run_ends_at_the_next_look_and_stays_stopped(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    def stop(task: Task) -> Answer:
        runs.move("small-1", "stopped", "by the coordinator")
        return None

    grid = at(hospitals, north={"train": stop})
    runs, registry, go = run_of(tmp_path, grid)
    with pytest.raises(FederationError, match="was stopped"):
        go()
    record = json.loads((registry / "record.json").read_text())
    assert (record["state"], record["reason"]) == ("stopped", "by the coordinator")


def put_reference(registry: Path, study: Study) -> Path:
    network = build_network(study)
    layout = layout_of(network)
    save_checkpoint(registry / "made", pack(network, layout), layout)
    (registry / "references").mkdir(parents=True)
    target = registry / "references" / "centralised.safetensors"
    (registry / "made" / "weights.safetensors").rename(target)
    return target


def test_a_reference_is_judged_beside_the_runs_own_models(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    runs, registry, go = run_of(tmp_path, at(hospitals))
    put_reference(registry, STUDY)
    go()
    assert "centralised" in runs.record("small-1")["models"]


def test_a_reference_of_another_network_ends_the_run_before_any_site_is_asked(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals)
    runs, registry, go = run_of(tmp_path, grid)
    put_reference(registry, small_study(network={"block_inplanes": [4, 4, 8, 16]}))
    with pytest.raises(ConfigError, match="of another network"):
        go()
    assert all(site.asked == [] for site in grid.sites.values())
    assert runs.get("small-1").state == "failed"


def test_whatever_ends_the_process_is_written_down(
    hospitals: dict[str, SiteHome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = at(hospitals)
    runs, registry, go = run_of(tmp_path, grid)

    def broken() -> Any:
        raise ZeroDivisionError("Hong^Gildong")

    monkeypatch.setattr(grid, "get_nodes", broken)
    with pytest.raises(ZeroDivisionError):
        go()
    assert runs.get("small-1").reason == "the server's process ended: ZeroDivisionError"
    assert (registry / "record.json").is_file()


@pytest.fixture(scope="module")
def undisturbed(hospitals: dict[str, SiteHome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        _, registry, go = run_of(tmp_path_factory.mktemp("undisturbed"), at(hospitals))
        go()
    return registry


class Killed(BaseException):
    """The end of the server's process in the middle of something."""


def once(answer: Change) -> Change:
    """The server's process ends when this is asked for the first time; afterwards it is answered."""
    left = [Killed("-9")]

    def asked(task: Task) -> Answer:
        if left:
            raise left.pop()
        return answer(task)

    return asked


@pytest.mark.parametrize(("kind", "after"), [("ready", 0), ("train", 0), ("train", 1), ("train_alone", 2),
                                             ("score", 2), ("place", 2)])  # fmt: skip
def test_a_run_whose_process_was_killed_goes_on_and_ends_as_if_nothing_had_been(
    kind: str, after: int, hospitals: dict[str, SiteHome], tmp_path: Path, undisturbed: Path
) -> None:
    killing = once(working(hospitals["east"], STUDY))
    bench = working(hospitals["east"], STUDY)
    grid = at(hospitals, east={kind: lambda task: (killing if task.round in (0, after + 1) else bench)(task)})
    runs, registry, go = run_of(tmp_path, grid)
    with pytest.raises(Killed):
        go()
    assert runs.get("small-1").state in ("waiting", "running")
    runs.attach("small-1", 2)
    go()
    assert runs.get("small-1").state == "finished"
    for folder in ("round-0001", "round-0002", "local-east", "local-north", "local-south"):
        assert weights_in(registry / folder) == weights_in(undisturbed / folder), folder
    assert json.loads((registry / "judgement.json").read_text()) == json.loads(
        (undisturbed / "judgement.json").read_text()
    )
    asked = [(task.kind, task.round) for task in grid.sites["north"].asked]
    assert ("train", 1) in asked
    assert not after or asked.count(("train", 1)) == 1  # a round that had closed is not trained again
    told = runs.record("small-1")
    assert [fact["number"] for fact in told["rounds"]] == [1, 2]
    assert told["models"] == ["federated", "local:east", "local:north", "local:south"]


def weights_in(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_a_run_does_not_go_on_from_a_checkpoint_that_was_changed(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, east={"train_alone": once(working(hospitals["east"], STUDY))})
    _, registry, go = run_of(tmp_path, grid)
    with pytest.raises(Killed):
        go()
    save_checkpoint(registry / "round-0002", pack(build_network(STUDY), LAYOUT), LAYOUT)
    with pytest.raises(FederationError, match="checkpoint of round 2 is not the one"):
        go()


def test_a_site_left_out_of_the_judgement_before_is_not_in_the_pool_afterwards(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    """A site lets itself be linked in a smaller pool, never in a larger one."""
    kept = Clears(working(hospitals["north"], STUDY))
    refusals = iter([refused("TRAINING")])
    killed_at_second = iter([working(hospitals["east"], STUDY), once(working(hospitals["east"], STUDY))])
    south = working(hospitals["south"], STUDY)
    grid = at(
        hospitals,
        north={"place": kept},
        south={"place": lambda task: next(refusals, south)(task)},
        east={"place": lambda task: next(killed_at_second, working(hospitals["east"], STUDY))(task)},
    )
    runs, registry, go = run_of(tmp_path, grid)
    with pytest.raises(Killed):
        go()
    go()
    assert set(judged(registry).sites) == {"north", "east"}
    assert judged(registry).left_out == {"south": "TRAINING 0123456789ab"}
    assert runs.get("small-1").state == "finished"


def test_a_process_that_was_replaced_ends_without_a_word_in_the_run(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    def replaced(task: Task) -> Answer:
        runs.attach("small-1", 99)
        return None

    runs, _, go = run_of(tmp_path, at(hospitals, north={"train": replaced}))
    with pytest.raises(Interrupted, match="in another process"):
        go()
    assert runs.get("small-1").state == "running"


@pytest.mark.parametrize(
    "lost", [httpx.ConnectError("gone"), ObjectPushError("of a message", 7, "of a SuperLink that is gone")]
)
def test_a_process_that_loses_the_superlink_is_no_end_of_its_run(
    lost: Exception, hospitals: dict[str, SiteHome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise lost

    grid = at(hospitals)
    runs, _, go = run_of(tmp_path, grid)
    monkeypatch.setattr(grid, "get_nodes", away)
    with pytest.raises(type(lost)):
        go()
    assert runs.get("small-1").state == "waiting"


def test_a_round_without_all_of_its_sites_leaves_the_run_degraded_until_all_are_back(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    states: list[tuple[str, str]] = []
    south = working(hospitals["south"], STUDY)

    def second(task: Task) -> Answer:
        states.append((runs.get("small-1").state, runs.get("small-1").reason))
        return south(task) if task.round == 2 else Error(wire.ERROR_NUMBER, "TRAINING 0123456789ab")

    runs, _, go = run_of(tmp_path, at(hospitals, south={"train": second, "train_alone": second}))
    go()
    assert states == [
        ("running", "round 1 of 2"),
        ("degraded", "round 1 closed without south (TRAINING 0123456789ab)"),
        ("running", "judging the models"),
    ]
    assert runs.get("small-1").state == "finished"


def test_a_paused_run_closes_its_round_and_asks_nothing_more_until_it_is_resumed(
    hospitals: dict[str, SiteHome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_app, "PAUSED_POLL_S", 0.01)
    north, paused = working(hospitals["north"], STUDY), threading.Event()

    def pausing(task: Task) -> Answer:
        if task.round == 1:
            assert runs.pause("small-1")
            paused.set()
        return north(task)

    grid = at(hospitals, north={"train": pausing})
    runs, registry, go = run_of(tmp_path, grid)
    going = threading.Thread(target=go)
    going.start()
    assert paused.wait(60)
    wait_for(lambda: bool(runs.facts("small-1", "round_closed")), 60, "the open round")
    time.sleep(0.3)
    assert runs.get("small-1").state == "paused"
    assert {task.round for task in grid.sites["north"].asked} == {0, 1}
    assert runs.resume("small-1")
    going.join(120)
    assert runs.get("small-1").state == "finished"
    assert (registry / "judgement.json").is_file()


def test_a_run_in_which_no_site_can_train_has_failed(hospitals: dict[str, SiteHome], tmp_path: Path) -> None:
    no: dict[str, Change] = {"train": refused("TRAINING")}
    runs, _, go = run_of(tmp_path, at(hospitals, south=no, east=no, north=no))
    with pytest.raises(OutOfTime):
        go()
    run = runs.get("small-1")
    assert (run.state, run.reason.count("TRAINING")) == ("failed", 3)
