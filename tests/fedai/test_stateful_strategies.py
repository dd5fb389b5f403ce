"""SCAFFOLD, FedDyn, qFedAvg, FedRep, Ditto and Cyclic against cases worked out by hand: at the server with
two sites, and at a site whose every round is one step of plain SGD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aggregated import LAYOUT, Site, after, combined, gathered, states_after, weights
from pydantic import TypeAdapter, ValidationError
from studies import draw_images, small_study

from fedai.errors import FederationError
from fedai.local import Cases, LocalRound, SiteModel, train_round
from fedai.registry import SGD, AdamW
from fedai.strategies import Rule, Strategy
from fedai.strategies.fedper import head_of
from fedai.strategies.fedrep import FedRep
from fedai.strategies.rule import Phase
from fedai.study import Study
from fedai.tasks.classification import build_loss, to_input
from fedai.weights import Weights, layout_of, pack

START = weights([1, -1, 0.5, 0, 2], 7, 3)
NORTH, EAST = np.array([1, 2, 0, 0, 4]), np.array([5, -2, 0, 4, 0])
CASES = Cases(*draw_images(8))
RATE = 0.05


def rule_of(**settings: Any) -> Rule:
    made: Rule = TypeAdapter(Strategy).validate_python(settings)
    return made


def two(**beside: tuple[Any, Any]) -> dict[str, Site]:
    """Two sites, and what they send beside their updates."""
    north, east = ({name: np.array(pair[place]) for name, pair in beside.items()} for place in (0, 1))
    return {
        "north": (weights(NORTH.tolist(), 10, 5), 30, 6, north),
        "east": (weights(EAST.tolist(), 2, 9), 10, 2, east),
    }


# ---------------------------------------------------------------- at the server


def test_scaffold_moves_by_the_mean_and_its_control_by_the_part_that_answered() -> None:
    changes = np.float32([[4, 0, 8, 0, -4], [0, 4, 0, 8, 4]])
    rule, sites = rule_of(name="SCAFFOLD", learning_rate=0.5), two(control=tuple(changes))
    found, state = states_after(rule, START, [sites], among=4)
    np.testing.assert_allclose(found.parameters - START.parameters, 0.5 * (NORTH + EAST) / 2, rtol=1e-6)
    np.testing.assert_allclose(state["control"], [1, 1, 2, 2, 0])  # 2 of 4 sites times the mean
    assert (found.buffers.tolist(), found.counters.tolist()) == ([8.0], [9])  # buffers by cases, as always
    _, state = states_after(rule, START, [sites, sites], among=4)
    np.testing.assert_allclose(state["control"], [2, 2, 4, 4, 0])
    told = rule.tell(state, LAYOUT)["control"]
    assert (told.dtype, told.tolist()) == (np.float32, [2, 2, 4, 4, 0])
    assert rule.tell({}, LAYOUT)["control"].tolist() == [0] * 5


def test_feddyn_goes_beyond_the_mean_by_what_it_remembers() -> None:
    mean = (NORTH + EAST) / 2
    rule = rule_of(name="FedDyn", alpha=0.2)
    found, state = states_after(rule, START, [two()], among=4)
    np.testing.assert_allclose(found.parameters - START.parameters, mean + 0.5 * mean, rtol=1e-6)
    np.testing.assert_allclose(state["drift"], -0.2 * 0.5 * mean)
    found = after(rule, START, [two(), two()], among=4)
    np.testing.assert_allclose(found.parameters - START.parameters, 1.5 * mean + 2 * mean, rtol=1e-6)


def test_qfedavg_weighs_by_the_loss_and_divides_as_the_paper_says() -> None:
    rule, optimizer = rule_of(name="qFedAvg", q=2.0), SGD(name="SGD", learning_rate=0.5)  # L = 2
    sites = two(start_loss=([1.0], [3.0]))
    below = (2 * 1 * 4 * 21 + 2 * 1) + (2 * 3 * 4 * 45 + 2 * 9)  # q F^(q-1) L^2 |u|^2 + L F^q
    expected = (1 * 2 * NORTH + 9 * 2 * EAST) / below
    found = after(rule, START, [sites], optimizer)
    np.testing.assert_allclose(found.parameters - START.parameters, expected, atol=1e-6)
    assert found.buffers.tolist() == [8.0]


def test_qfedavg_without_q_counts_sites_alike() -> None:
    found = after(rule_of(name="qFedAvg", q=0), START, [two(start_loss=([1.0], [9.0]))])
    np.testing.assert_allclose(found.parameters - START.parameters, (NORTH + EAST) / 2, rtol=1e-6)


@pytest.mark.parametrize("loss", [-0.1, 31.0, float("nan")])
def test_a_loss_that_can_not_be_is_refused(loss: float) -> None:
    with pytest.raises(FederationError, match="claims a loss"):
        combined(rule_of(name="qFedAvg"), two(start_loss=([loss], [1.0])))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_control_variate_that_can_not_be_summed_is_refused_whole(value: float) -> None:
    found = gathered(rule_of(name="SCAFFOLD"), {}, AdamW(), among=2)
    with pytest.raises(FederationError, match="control variate"):
        found.add("north", weights(NORTH.tolist()), 3, 1, {"control": np.full(5, value, np.float32)})
    assert found.sites == []


def test_cyclic_asks_one_site_after_the_other_and_has_the_next_ready() -> None:
    rule, sites = rule_of(name="Cyclic"), ("north", "east", "south")
    assert [rule.turns(sites, number)[0] for number in (1, 2, 3, 4)] == [
        ("north",), ("east",), ("south",), ("north",),
    ]  # fmt: skip
    assert rule.turns(sites, 2) == [("east",), ("south",), ("north",)]
    assert rule_of(name="FedAvg").turns(sites, 2) == [sites]


@pytest.mark.parametrize("optimizer", [{"name": "AdamW"}, {"name": "SGD", "momentum": 0.9}])
def test_scaffold_with_other_steps_than_plain_ones_is_refused(optimizer: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="SCAFFOLD takes plain steps"):
        small_study(strategy={"name": "SCAFFOLD"}, training={"optimizer": optimizer})


# ---------------------------------------------------------------- at a site


def study_of(strategy: dict[str, Any], **training: Any) -> Study:
    """Each epoch is one step of plain SGD on all eight cases."""
    optimizer = {"name": "SGD", "learning_rate": RATE, "momentum": 0.0}
    return small_study(strategy=strategy, training={"batch_size": 8, "optimizer": optimizer, **training})


def started(study: Study) -> tuple[SiteModel, Weights]:
    model = SiteModel.of(study)
    return model, pack(model.network, model.shared)


def train_at(
    model: SiteModel, given: Weights, told: Any = None, kept: Any = None, number: int = 1
) -> LocalRound:
    return train_round(model, given, told or {}, kept or {}, CASES, site="north", number=number)


def gradient_at(model: SiteModel, given: Weights) -> np.ndarray:
    """Of the mean loss of all cases, at these weights."""
    model.load(given, {})
    network = model.network.train()
    device = torch.device("cpu")
    loss = build_loss(model.study.training.loss, [4, 4], device)(
        network(to_input(CASES.images, device)), torch.from_numpy(CASES.labels)
    )
    found = torch.autograd.grad(loss, list(network.parameters()))
    return np.concatenate([part.numpy().ravel() for part in found])


def test_after_one_step_scaffolds_control_variate_is_the_gradient_whatever_the_servers_is() -> None:
    model, given = started(study_of({"name": "SCAFFOLD"}))
    gradient = gradient_at(model, given)
    kept: Any = {}
    for number, told in enumerate((0.0, 0.3), start=1):
        control = np.full(len(gradient), told, np.float32)
        before = kept.get("control", 0.0)
        done = train_at(model, given, {"control": control}, kept, number)
        np.testing.assert_allclose(done.update.parameters, -RATE * (gradient - before + control), atol=2e-6)
        np.testing.assert_allclose(done.kept["control"], gradient, atol=5e-5)
        np.testing.assert_allclose(done.beside["control"], done.kept["control"] - before, atol=1e-6)
        kept = done.kept


def test_scaffold_divides_by_the_way_of_all_steps_also_where_the_rate_falls() -> None:
    model, given = started(study_of({"name": "SCAFFOLD"}, local_epochs=3, learning_rate_schedule="cosine"))
    done = train_at(model, given, {"control": np.zeros(len(given.parameters), np.float32)})
    rates = [RATE * (1 + np.cos(np.pi * epoch / 6)) / 2 for epoch in range(3)]
    np.testing.assert_allclose(done.trained.travel, sum(rates))
    np.testing.assert_allclose(done.kept["control"], -done.update.parameters / sum(rates), atol=1e-5)


def test_feddyn_bends_a_step_by_the_gradient_that_it_kept() -> None:
    model, given = started(study_of({"name": "FedDyn", "alpha": 0.5}))
    gradient = gradient_at(model, given)
    first = train_at(model, given)
    np.testing.assert_allclose(first.update.parameters, -RATE * gradient, atol=1e-6)
    np.testing.assert_allclose(first.kept["gradient"], 0.5 * RATE * gradient, atol=1e-6)
    second = train_at(model, given, kept=first.kept, number=2)
    bent = gradient - 0.5 * RATE * gradient
    np.testing.assert_allclose(second.update.parameters, -RATE * bent, atol=2e-6)
    np.testing.assert_allclose(second.kept["gradient"], 0.5 * RATE * (gradient + bent), atol=2e-6)
    assert dict(first.beside) == {}


def test_qfedavg_sends_the_loss_of_the_weights_that_it_was_sent() -> None:
    model, given = started(study_of({"name": "qFedAvg"}))
    told = train_at(model, given).beside
    model.load(given, {})
    with torch.no_grad():
        logits = model.network.eval()(to_input(CASES.images, torch.device("cpu")))
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(CASES.labels))
    assert list(told) == ["start_loss"]
    np.testing.assert_allclose(told["start_loss"], [float(expected)], rtol=1e-5)


def test_under_ditto_what_leaves_is_fedavgs_and_the_own_model_is_held_near_it() -> None:
    plain, given = started(study_of({"name": "FedAvg"}))
    ditto, _ = started(study_of({"name": "Ditto", "weight": 2.0}))
    gradient = gradient_at(plain, given)
    done = train_at(ditto, given)
    assert done.update.parameters.tobytes() == train_at(plain, given).update.parameters.tobytes()
    assert dict(done.beside) == {}
    own = given.parameters - RATE * gradient  # the first step begins at the weights sent
    np.testing.assert_allclose(done.kept["parameters"], own, atol=1e-6)
    second = train_at(ditto, given, kept=done.kept, number=2)
    slope = gradient_at(ditto, Weights.of(dict(done.kept))) + 2.0 * (own - given.parameters)
    np.testing.assert_allclose(second.kept["parameters"], own - RATE * slope, atol=2e-6)


def test_fedrep_trains_the_head_first_and_then_all_the_rest() -> None:
    class HeadOnly(FedRep):
        def phases(self, network: torch.nn.Module, epochs: int) -> tuple[Phase, ...]:
            return super().phases(network, epochs)[:1]

    study = study_of({"name": "FedRep", "head_epochs": 2})
    model, given = started(study)
    whole = layout_of(model.network)
    head = [place for place, entry in enumerate(whole.parameters) if entry.name in head_of(model.network)]
    assert [whole.parameters[place].shape for place in head] == [(2, 8), (2,)]
    begun = dict(
        train_at(*started(study.model_copy(update={"strategy": HeadOnly(name="FedRep", head_epochs=2)}))).kept
    )
    done = train_at(model, given)
    assert np.array_equal(done.kept["parameters"], begun["parameters"])  # the second phase leaves the head
    half = SiteModel.of(study.model_copy(update={"strategy": HeadOnly(name="FedRep", head_epochs=2)}))
    assert not train_at(half, given).update.parameters.any()  # the first phase leaves the rest
    assert done.update.parameters.any()
    assert done.trained.steps == 3
    assert all(parameter.requires_grad for parameter in model.network.parameters())
