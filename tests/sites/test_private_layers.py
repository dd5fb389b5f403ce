"""What a strategy leaves at a site: it stays, through rounds and restarts, and nothing can send it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.client_app import Bench
from fedai_site.egress import Egress, check_norm
from fedai_site.home import SiteHome
from homes import make_home
from replies_to import task_of
from studies import small_study

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.ledger import Ledger
from fedai.site_state import KEPT_ROUNDS, SiteState
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, layout_of, pack
from fedai.wire import Reply, Task

NETWORK = {"normalization": "as_built"}
FEDBN = small_study(strategy={"name": "FedBN"}, network=NETWORK)
RUN = 7


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=28)


def bench_at(home: SiteHome, study: Study = FEDBN) -> Bench:
    return Bench(home, study, lambda: True)


def shared_of(study: Study) -> tuple[Layout, Weights]:
    network = build_network(study)
    layout = study.strategy.shared_layout(network)
    return layout, pack(network, layout)


def asked(kind: wire.TaskKind, run: str, study: Study = FEDBN, **changes: Any) -> Task:
    layout, weights = shared_of(study)
    arrays = dict(weights.arrays())
    if kind == "train":
        arrays |= study.strategy.tell({}, layout)
    facts = {"study": study.sha256, "layout": layout.to_json(), "arrays": arrays, "run": run}
    return task_of(kind, **{**facts, **changes})


def updates(reply: Reply) -> bytes:
    return b"".join(reply.arrays[name].tobytes() for name in ("parameters", "buffers", "counters"))


@pytest.mark.parametrize("kind", ["train", "train_alone"])
def test_an_update_under_fedbn_holds_no_normalization_layer_and_egress_lets_none_out(
    kind: wire.TaskKind, home: SiteHome, tmp_path: Path
) -> None:
    bench, task = bench_at(home), asked(kind, "egress")
    reply = bench.answer(task, RUN)
    network = build_network(FEDBN)
    whole = layout_of(network)
    kept = FEDBN.strategy.private(network)
    sent = whole.sizes()["parameters"] - sum(e.size for e in whole.parameters if e.name in kept)
    assert reply.arrays["parameters"].shape == (sent,)
    assert (reply.arrays["buffers"].size, reply.arrays["counters"].size) == (0, 0)
    door = Egress(Ledger(tmp_path / "ledger.jsonl"))
    door.pass_reply(reply, task, FEDBN, bench.layout, "egress", size=1)
    everything = pack(bench.model.network, whole).arrays()
    smuggled = dataclasses.replace(reply, arrays={**reply.arrays, **everything})
    with pytest.raises(RefusedByPolicy):
        door.pass_reply(smuggled, task, FEDBN, bench.layout, "egress", size=1)


def test_a_server_that_asks_for_the_whole_network_under_fedbn_is_refused(home: SiteHome) -> None:
    network = build_network(FEDBN)
    layout = layout_of(network)
    task = asked("train", "greedy", layout=layout.to_json(), arrays=dict(pack(network, layout).arrays()))
    with pytest.raises(RefusedByPolicy, match="layout of the weights"):
        bench_at(home).answer(task, RUN)


def test_the_own_layers_go_on_from_round_to_round(home: SiteHome) -> None:
    bench = bench_at(home)
    first = pack(build_network(FEDBN), bench.model.own)
    bench.answer(asked("train", "goes-on"), RUN)
    after_one = bench.state.before(2)
    bench.answer(asked("train", "goes-on", round=2), RUN)
    after_two = bench.state.before(3)
    assert dict(bench.state.before(1)) == {}
    assert len({w["parameters"].tobytes() for w in (first.arrays(), after_one, after_two)}) == 3
    assert after_two["counters"].max() == 2 * after_one["counters"].max() > 0


PLAIN_STEPS = {"optimizer": {"name": "SGD", "momentum": 0.0}}
STATEFUL = {
    name: small_study(strategy={"name": name}, network=NETWORK, training=PLAIN_STEPS)
    for name in ("FedBN", "FedPer", "FedRep", "Ditto", "SCAFFOLD", "FedDyn")
}


@pytest.mark.parametrize("name", STATEFUL)
def test_after_a_restart_a_round_gives_the_same_update(name: str, home: SiteHome) -> None:
    """Whether asked anew in the middle of a run, or by a process that remembers nothing; and what was kept
    of the round before counts.
    """
    study, run = STATEFUL[name], f"restart-{name.lower()}"

    def task(number: int) -> Task:
        return asked("train", run, study, round=number)

    warm = bench_at(home, study)
    warm.answer(task(1), RUN)
    second = updates(warm.answer(task(2), RUN))
    left = {part: array.tobytes() for part, array in warm.state.before(3).items()}
    assert updates(warm.answer(task(2), RUN)) == second
    cold = bench_at(home, study)
    assert updates(cold.answer(task(2), RUN)) == second
    assert {part: array.tobytes() for part, array in cold.state.before(3).items()} == left
    kept_none = bench_at(home, study)
    other = updates(kept_none.answer(asked("train", f"{run}-x", study, round=2), RUN))
    own = {part: array.tobytes() for part, array in kept_none.state.before(3).items()}
    assert own != left
    assert (other == second) == (name == "Ditto")  # its own model doesn't touch what is shared


@pytest.mark.parametrize("name", [*STATEFUL, "qFedAvg"])
def test_what_leaves_beside_an_update_is_what_the_strategy_names_and_nothing_that_is_kept(
    name: str, home: SiteHome, tmp_path: Path
) -> None:
    study = STATEFUL.get(name) or small_study(strategy={"name": name}, network=NETWORK)
    bench, task = bench_at(home, study), asked("train", f"beside-{name.lower()}", study)
    reply = bench.answer(task, RUN)
    usual = {"parameters", "buffers", "counters", "histogram"}
    beside = {"SCAFFOLD": {"control"}, "qFedAvg": {"start_loss"}}.get(name, set())
    assert set(reply.arrays) == usual | beside
    door = Egress(Ledger(tmp_path / "ledger.jsonl"))
    door.pass_reply(reply, task, study, bench.layout, "egress", size=1)
    for part, kept in bench.state.before(2).items():
        smuggled = dataclasses.replace(reply, arrays={**reply.arrays, f"own_{part}": kept})
        with pytest.raises(RefusedByPolicy, match="too many"):
            door.pass_reply(smuggled, task, study, bench.layout, "egress", size=1)
    for missing in beside:
        short = {part: array for part, array in reply.arrays.items() if part != missing}
        with pytest.raises(RefusedByPolicy, match=f"missing: {missing}"):
            door.pass_reply(dataclasses.replace(reply, arrays=short), task, study, bench.layout, "e", size=1)


def test_a_control_variate_is_within_the_bound_on_updates_too(home: SiteHome) -> None:
    study = STATEFUL["SCAFFOLD"]
    reply = bench_at(home, study).answer(asked("train", "bound", study), RUN)
    update, control = (float(np.linalg.norm(reply.arrays[part])) for part in ("parameters", "control"))
    assert update < control
    check_norm(reply, control * 1.01)
    with pytest.raises(RefusedByPolicy, match="L2 norm"):
        check_norm(reply, (update + control) / 2)


def test_a_task_without_the_strategys_arrays_or_with_others_is_refused(home: SiteHome) -> None:
    study = STATEFUL["SCAFFOLD"]
    task = asked("train", "lacking", study)
    without = {part: array for part, array in task.arrays.items() if part != "control"}
    for arrays in (without, {**task.arrays, "gradient": task.arrays["control"]}):
        with pytest.raises(RefusedByPolicy, match="doesn't fit the study"):
            bench_at(home, study).answer(dataclasses.replace(task, arrays=arrays), RUN)


def test_under_ditto_a_site_is_scored_with_its_own_model(home: SiteHome) -> None:
    study = STATEFUL["Ditto"]
    bench, run = bench_at(home, study), "ditto-scored"
    model = asked("score", run, study, model="federated")
    shared = bench.answer(model, RUN).arrays["histogram"].tobytes()
    bench.answer(asked("train_alone", run, study), RUN)
    assert bench.answer(model, RUN).arrays["histogram"].tobytes() == shared  # no round yet
    bench.answer(asked("train", run, study), RUN)
    assert bench.answer(model, RUN).arrays["histogram"].tobytes() != shared
    assert (
        bench.answer(asked("score", run, study, model="local:east"), RUN).arrays["histogram"].tobytes()
        == shared
    )


def test_a_score_is_of_the_sites_own_layers(home: SiteHome) -> None:
    bench = bench_at(home)
    model = asked("score", "scored", model="federated")
    untrained = bench.answer(model, RUN).arrays["histogram"].tobytes()
    bench.answer(asked("train", "scored"), RUN)
    trained = bench.answer(model, RUN).arrays["histogram"].tobytes()
    assert trained != untrained
    assert bench_at(home).answer(model, RUN).arrays["histogram"].tobytes() == trained
    alone = bench.answer(asked("score", "scored", model="local:north"), RUN).arrays["histogram"].tobytes()
    assert alone == untrained  # this site has trained no model of its own yet


def test_without_private_layers_nothing_is_kept(home: SiteHome) -> None:
    bench = bench_at(home, small_study())
    bench.answer(task_of("train", run="plain"), RUN)
    assert not list((home.runs / "plain").rglob("private-*"))


def test_state_is_kept_by_round_and_read_back_to_the_bit(tmp_path: Path) -> None:
    _, first = shared_of(small_study(network=NETWORK))
    state = SiteState(tmp_path / "run")
    state.keep({}, 1)
    assert not (tmp_path / "run").exists()
    for number in (2, 10):
        state.keep({"w": first.parameters + number, "n": first.counters + number}, number)
    assert dict(state.before(2)) == dict(state.alone()) == {}
    assert state.before(10)["n"].tolist() == (first.counters + 2).tolist()
    assert state.before(11)["w"].tobytes() == (first.parameters + 10).tobytes()


def test_of_many_rounds_the_last_are_kept(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    for number in range(1, 13):
        state.keep({"w": np.array([number])}, number)
    state.keep({"w": np.array([99])}, "alone")
    assert len(list(tmp_path.glob("*"))) == KEPT_ROUNDS + 1
    assert state.before(13)["w"].tolist() == [12]
    assert state.before(6)["w"].tolist() == [5]
    assert dict(state.before(5)) == {}


def test_fedprox_pulls_a_step_back_by_mu_times_the_way_gone(home: SiteHome) -> None:
    """With all cases in one batch the second steps differ by the pull alone, whatever the cases are."""

    def way_gone(strategy: dict[str, Any], steps: int) -> Any:
        optimizer = {"name": "SGD", "learning_rate": 0.005, "momentum": 0.0}
        training = {"optimizer": optimizer, "batch_size": 64, "local_epochs": steps}
        study = small_study(strategy=strategy, training=training)
        run = f"{strategy['name'].lower()}-{steps}"
        return bench_at(home, study).answer(asked("train", run, study), RUN).arrays["parameters"]

    one, two = (way_gone({"name": "FedAvg"}, steps) for steps in (1, 2))
    pulled = way_gone({"name": "FedProx", "mu": 100.0}, 2)
    np.testing.assert_allclose(pulled, two - 0.005 * 100 * one, rtol=0, atol=1e-6)
    assert np.abs(0.5 * one).max() > 1e-4
