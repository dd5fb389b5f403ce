"""Each strategy against a case worked out by hand, and against Flower's own where it has one."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from aggregated import LAYOUT, Site, after, after_flowers, combined, draw_rounds, weights
from flwr.serverapp import strategy as flower
from pydantic import TypeAdapter, ValidationError
from studies import small_study

from fedai.checkpoint import load_state, save_state
from fedai.errors import FederationError
from fedai.registry import SGD, Network
from fedai.strategies import Rule, State, Strategy
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import layout_of

START = weights([1, -1, 0.5, 0, 2], 7, 3)
TWO: dict[str, Site] = {
    "north": (weights([1, 2, 0, 0, 4], 10, 5), 30, 6),
    "east": (weights([5, -2, 0, 4, 0], 2, 9), 10, 2),
}
MEAN = np.array([2, 1, 0, 1, 3])  # (30 north + 10 east) / 40


def rule_of(**settings: Any) -> Rule:
    made: Rule = TypeAdapter(Strategy).validate_python(settings)
    return made


def moved(rule: Rule, rounds: list[dict[str, Site]]) -> np.ndarray:
    return after(rule, START, rounds).parameters - START.parameters


@pytest.mark.parametrize(
    "name", ["FedAvg", "FedProx", "FedBuff", "FedBN", "FedPer", "FedRep", "Ditto", "Cyclic"]
)
def test_the_server_averages_by_cases(name: str) -> None:
    found = after(rule_of(name=name), START, [TWO])
    np.testing.assert_allclose(found.parameters - START.parameters, MEAN)
    assert (found.buffers.tolist(), found.counters.tolist()) == ([8.0], [9])


def test_fedavgm_carries_momentum() -> None:
    rule = rule_of(name="FedAvgM", momentum=0.5, learning_rate=2.0)
    np.testing.assert_allclose(moved(rule, [TWO]), 2 * MEAN)
    np.testing.assert_allclose(moved(rule, [TWO, TWO]), 2 * MEAN + 2 * 1.5 * MEAN)


def test_fedadagrad_divides_by_the_root_of_all_squares() -> None:
    rule = rule_of(name="FedAdagrad", learning_rate=0.3, tau=0.5)
    np.testing.assert_allclose(moved(rule, [TWO]), 0.3 * MEAN / (np.abs(MEAN) + 0.5), rtol=1e-6)


def test_fedyogi_moves_the_second_moment_by_the_squares_sign() -> None:
    rule = rule_of(name="FedYogi", learning_rate=0.3, beta1=0.5, beta2=0.75, tau=0.5)
    expected = 0.3 * 0.5 * MEAN / (np.sqrt(0.25 * MEAN**2) + 0.5)  # v = 0 - 0.25 s sign(0 - s)
    np.testing.assert_allclose(moved(rule, [TWO]), expected, rtol=1e-6)


def test_fedadam_corrects_for_the_start_at_zero() -> None:
    rule = rule_of(name="FedAdam", learning_rate=0.3, beta1=0.5, beta2=0.75, tau=0.5)
    rate = 0.3 * np.sqrt(1 - 0.75**2) / (1 - 0.5**2)
    expected = rate * 0.5 * MEAN / (np.sqrt(0.25 * MEAN**2) + 0.5)
    np.testing.assert_allclose(moved(rule, [TWO]), expected, rtol=1e-6)


def test_fednova_divides_each_update_by_its_steps() -> None:
    north, east = np.array([1, 2, 0, 0, 4]) / 6, np.array([5, -2, 0, 4, 0]) / 2
    expected = (0.75 * 6 + 0.25 * 2) * (0.75 * north + 0.25 * east)
    np.testing.assert_allclose(moved(rule_of(name="FedNova"), [TWO]), expected, atol=1e-6)


def test_fednova_knows_how_far_momentum_carries() -> None:
    """Two steps of one gradient g with momentum m end at (1 + (1 + m)) g."""
    sites: dict[str, Site] = {
        "north": (weights([2.5, 0, 0, 0, 0]), 10, 2),
        "east": (weights([1, 0, 0, 0, 0]), 10, 1),
    }
    found = combined(rule_of(name="FedNova"), sites, SGD(name="SGD", momentum=0.5)).parameters
    np.testing.assert_allclose(found[0], 1.75)  # both sites' gradient is 1; (2.5 + 1) / 2 steps on average


PAIRS = {
    "FedAvg": (flower.FedAvg, {}, {}),
    "FedAvgM": (flower.FedAvgM, {"momentum": 0.7, "learning_rate": 0.5},
                {"server_momentum": 0.7, "server_learning_rate": 0.5}),
    "FedProx": (flower.FedProx, {"mu": 0.1}, {"proximal_mu": 0.1}),
    "FedAdam": (flower.FedAdam, {"learning_rate": 0.05}, {"eta": 0.05}),
    "FedYogi": (flower.FedYogi, {"learning_rate": 0.05}, {"eta": 0.05}),
    "FedAdagrad": (flower.FedAdagrad, {"learning_rate": 0.05}, {"eta": 0.05}),
    "Median": (flower.FedMedian, {}, {}),
    "TrimmedMean": (flower.FedTrimmedAvg, {"trim": 2}, {"beta": 0.3}),  # of seven sites, two
    "Krum": (flower.MultiKrum, {"liars": 2, "keep": 3}, {"num_malicious_nodes": 2, "num_nodes_to_select": 3}),
    "Bulyan": (flower.Bulyan, {"liars": 1}, {"num_malicious_nodes": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_three_rounds_end_where_flowers_own_end(name: str) -> None:
    kind, ours, theirs = PAIRS[name]
    rounds = draw_rounds(equal=name in ("Krum", "Bulyan"))  # Flower weighs Krum's choice by claimed cases
    found = after(rule_of(name=name, **ours), START, rounds).parameters
    np.testing.assert_allclose(found, after_flowers(kind(**theirs), START, rounds), rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 3.0])
def test_qfedavg_ends_where_flowers_own_ends(q: float) -> None:
    losses = np.random.default_rng(3).uniform(0.2, 2, (3, 7))
    rounds: list[dict[str, Site]] = [
        {name: (*site[:3], {"start_loss": losses[number, place : place + 1]})
         for place, (name, site) in enumerate(sites.items())}
        for number, sites in enumerate(draw_rounds())
    ]  # fmt: skip
    optimizer = SGD(name="SGD", learning_rate=0.05)
    found = after(rule_of(name="qFedAvg", q=q), START, rounds, optimizer).parameters
    theirs = flower.QFedAvg(client_learning_rate=0.05, q=q, train_loss_key="start_loss")
    np.testing.assert_allclose(found, after_flowers(theirs, START, rounds), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*PAIRS, "FedNova", "GeometricMedian", "SCAFFOLD", "FedDyn", "qFedAvg"])
def test_no_order_of_arrival_changes_a_bit_of_any_strategy(name: str) -> None:
    rule = rule_of(name=name)
    (drawn,) = draw_rounds(rounds=1)
    rng = np.random.default_rng(1)
    sites: dict[str, Site] = {
        site: (*facts[:3], {"control": rng.normal(size=5).astype(np.float32), "start_loss": rng.random(1)})
        for site, facts in drawn.items()
    }
    turned = list(sites.items())
    random.Random(4).shuffle(turned)
    first, second = (after(rule, START, [dict(order)]) for order in (sites.items(), turned))
    assert all(first.arrays()[part].tobytes() == second.arrays()[part].tobytes() for part in first.arrays())


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"])
def test_what_a_strategy_remembers_survives_the_disk_to_the_bit(name: str, tmp_path: Any) -> None:
    rule, rounds = rule_of(name=name), draw_rounds()
    now, state = START, State()
    for number, sites in enumerate(rounds, start=1):
        now, state = rule.step(now, combined(rule, sites), state, number)
        save_state(tmp_path / name / str(number), state)
        state = load_state(tmp_path / name / str(number))
        assert state
    assert now.parameters.tobytes() == after(rule, START, rounds).parameters.tobytes()


def test_fedavg_remembers_nothing(tmp_path: Any) -> None:
    save_state(tmp_path / "x", rule_of(name="FedAvg").step(START, MEAN_UPDATE, {}, 1)[1])
    assert not (tmp_path / "x").exists()
    assert load_state(tmp_path / "x") == {}


MEAN_UPDATE = weights(MEAN.tolist())


def test_a_study_whose_quorum_is_too_small_for_its_strategy_is_refused() -> None:
    for strategy, least in (
        ({"name": "Krum", "liars": 1}, 5),
        ({"name": "TrimmedMean"}, 3),
        ({"name": "Bulyan"}, 7),
    ):
        sites = [f"site-{number}" for number in range(8)]
        with pytest.raises(ValidationError, match=f"needs {least} answers"):
            small_study(sites=sites, strategy=strategy, rounds={"quorum": least - 1})
        assert small_study(sites=sites, strategy=strategy, rounds={"quorum": least}).strategy.name


def test_fewer_updates_than_a_strategy_needs_are_not_aggregated() -> None:
    with pytest.raises(FederationError, match="2 updates; the strategy needs 5"):
        combined(rule_of(name="Krum"), TWO)


def test_a_strategy_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError):
        small_study(strategy={"name": "FedSomething"})


def test_a_study_hash_is_what_it_was_before_there_was_a_choice() -> None:
    assert small_study().canonical() == small_study(strategy={"name": "FedAvg"}).canonical()
    assert '"strategy":{"name":"FedAvg"}' in small_study().canonical()


@pytest.mark.parametrize("network", [
    {"normalization": "as_built"},
    {"normalization": "group"},
    {"name": "DenseNet121"},
])  # fmt: skip
def test_fedbn_keeps_every_normalization_layer_and_nothing_else(network: dict[str, Any]) -> None:
    if "name" in network:
        study = wide_study("FedBN", network["name"])
    else:
        study = small_study(strategy={"name": "FedBN"}, network=network)
    built = build_network(study)
    shared, own = study.strategy.shared_layout(built), study.strategy.own_layout(built)
    names = [
        {e.name for part in (la.parameters, la.buffers, la.counters) for e in part} for la in (shared, own)
    ]
    assert names[0] | names[1] == set(built.state_dict())
    assert not names[0] & names[1]
    assert not shared.buffers
    assert not shared.counters
    assert {len(entry.shape) for entry in own.parameters} == {1}
    assert all("norm" in n or "bn" in n or "downsample.1" in n for n in names[1])


def wide_study(strategy: str, network: str) -> Study:
    """A study of a network that needs larger images."""
    made: Any = TypeAdapter(Network).validate_python({"name": network})
    study = small_study(strategy={"name": strategy}, preprocessing={"image_size": [32, 32]})
    return study.model_copy(update={"network": made})


@pytest.mark.parametrize("strategy", ["FedPer", "FedRep"])
@pytest.mark.parametrize("name", ["ResNet", "DenseNet121", "EfficientNetBN", "SEResNet50"])
def test_fedper_keeps_the_layer_that_gives_the_logits(name: str, strategy: str) -> None:
    study = wide_study(strategy, name)
    own = study.strategy.own_layout(build_network(study))
    assert [entry.shape[0] for entry in own.parameters] == [2, 2]  # weight and bias of two classes
    assert not own.buffers


def test_the_layout_of_a_study_without_private_layers_is_the_whole_networks() -> None:
    network = build_network(small_study())
    assert rule_of(name="FedAvg").shared_layout(network) == layout_of(network)
    assert not any(rule_of(name="FedAvg").own_layout(network).sizes().values())
    assert LAYOUT.sizes()["parameters"] == len(START.parameters)


def test_the_coordinators_page_names_every_strategy_and_its_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "coordinator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .* \|(.*)\|$", page, re.M)
    told = {
        name: set(re.findall(r"`(\w+)`", settings))
        for names, settings in rows
        for name in re.findall(r"\w+", names)
    }
    kinds = get_args(get_args(Strategy)[0])
    there = {
        get_args(kind.model_fields["name"].annotation)[0]: set(kind.model_fields) - {"name"} for kind in kinds
    }
    assert {name: told.get(name) for name in there} == there
