"""FedBN and FedPer at a site: some layers stay, through rounds and restarts, and nothing can send them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site.client_app import Bench
from fedai_site.egress import Egress
from fedai_site.home import SiteHome
from fedai_site.ledger import Ledger
from fedai_site.private import PrivateLayers
from homes import make_home
from replies_to import task_of
from studies import small_study

from fedai import wire
from fedai.errors import RefusedByPolicy
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
    facts = {"study": study.sha256, "layout": layout.to_json(), "arrays": dict(weights.arrays()), "run": run}
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
    everything = pack(bench.network, whole).arrays()
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
    first = pack(build_network(FEDBN), bench.private_layout)
    bench.answer(asked("train", "goes-on"), RUN)
    after_one = bench.private.before(2)
    bench.answer(asked("train", "goes-on", round=2), RUN)
    after_two = bench.private.before(3)
    assert bench.private.before(1).parameters.tobytes() == first.parameters.tobytes()
    assert len({w.parameters.tobytes() for w in (first, after_one, after_two)}) == 3
    assert after_two.counters.max() == 2 * after_one.counters.max() > 0


def test_after_a_restart_a_round_gives_the_same_update(home: SiteHome) -> None:
    """Whether asked anew in the middle of a run, or by a process that remembers nothing."""
    warm = bench_at(home)
    warm.answer(asked("train", "restart"), RUN)
    second = updates(warm.answer(asked("train", "restart", round=2), RUN))
    assert updates(warm.answer(asked("train", "restart", round=2), RUN)) == second
    assert updates(bench_at(home).answer(asked("train", "restart", round=2), RUN)) == second


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


def test_layers_are_kept_by_round_and_read_back_to_the_bit(tmp_path: Path) -> None:
    layout, first = shared_of(small_study(network=NETWORK))
    layers = PrivateLayers(tmp_path / "run", layout, first)
    assert layers.before(5) is first
    for number in (2, 10):
        moved = Weights(first.parameters + number, first.buffers, first.counters + number)
        layers.keep(moved, number)
    assert layers.before(2) is first
    assert layers.before(10).counters.tolist() == (first.counters + 2).tolist()
    assert layers.before(11).parameters.tobytes() == (first.parameters + 10).tobytes()
    assert layers.alone() is first


def test_fedprox_keeps_a_site_nearer_to_what_it_was_sent(home: SiteHome) -> None:
    lengths = []
    for mu in (0.0, 100.0):  # a step of 0.005 x 100 goes half the way back
        strategy = {"name": "FedProx", "mu": mu} if mu else {"name": "FedAvg"}
        optimizer = {"name": "SGD", "learning_rate": 0.005, "momentum": 0.0}
        study = small_study(strategy=strategy, training={"optimizer": optimizer, "local_epochs": 8})
        reply = bench_at(home, study).answer(asked("train", f"prox-{int(mu)}", study), RUN)
        lengths.append(float(np.linalg.norm(reply.arrays["parameters"])))
    assert lengths[1] < lengths[0] * 2 / 3
