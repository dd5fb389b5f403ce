"""Networks with BatchNorm through a round: what is aggregated loads strictly, and evaluates as defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from studies import draw_images, small_study

from fedai.checkpoint import save_checkpoint
from fedai.local import Cases, SiteModel, train_round
from fedai.registry import Network
from fedai.strategies import Conditions
from fedai.study import Study
from fedai.tasks.classification import build_network, to_input
from fedai.weights import Weights, pack

CASES = {"north": 12, "east": 8, "south": 4}
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet": {"layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8], "conv1_t_stride": 1},
    "DenseNet": {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]},
    "EfficientNetBN": {},
}
State = dict[str, torch.Tensor]


def study_of(network: str, strategy: dict[str, Any]) -> Study:
    made: Any = TypeAdapter(Network).validate_python({"name": network, **NETWORKS[network]})
    optimizer = {"name": "SGD", "learning_rate": 0.01, "momentum": 0.0}
    study = small_study(
        strategy=strategy,
        preprocessing={"image_size": [32, 32]},
        training={"optimizer": optimizer},
        rounds={"quorum": 3},
    )
    return study.model_copy(update={"network": made})


def drawn(site: str) -> Cases:
    return Cases(*draw_images(CASES[site], size=32, seed=CASES[site]))


def trained_states(study: Study) -> tuple[dict[str, State], Weights]:
    """Each site's whole state after training in a round, and the weights after it."""
    model = SiteModel.of(study)
    given = pack(model.network, model.shared)
    told = study.strategy.tell({}, model.shared)
    updates = study.strategy.gather(Conditions(model.shared, study.training.optimizer, len(CASES)))
    states: dict[str, State] = {}
    for site in CASES:
        done = train_round(model, given, told, {}, drawn(site), site=site, number=1)
        states[site] = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        updates.add(site, done.update, CASES[site], done.trained.steps, done.beside)
    known = dict(updates.noted())
    return states, study.strategy.step(given, updates.update(), known, 1)[0]


def as_defined(states: dict[str, State], shares: dict[str, float]) -> State:
    """Worked out tensor by tensor in double precision: parameters by `shares`, statistics those of all cases
    together, counters the largest.
    """
    cases = {site: number / sum(CASES.values()) for site, number in CASES.items()}

    def mean(name: str, weights: dict[str, float]) -> torch.Tensor:
        return sum(states[site][name].double() * weight for site, weight in weights.items())  # type: ignore

    out: State = {}
    for name, first in states["north"].items():
        if not first.is_floating_point():
            out[name] = torch.stack([state[name] for state in states.values()]).max(dim=0).values
        elif name.endswith("running_var"):
            centre = name.replace("running_var", "running_mean")
            squares = sum(  # of each site about the mean of all
                (states[site][name].double() + (states[site][centre].double() - mean(centre, cases)) ** 2)
                * share
                for site, share in cases.items()
            )
            out[name] = squares  # type: ignore[assignment]
        else:
            out[name] = mean(name, cases if "running_" in name else shares)
    return out


BY_CASES = {site: number / sum(CASES.values()) for site, number in CASES.items()}
ALIKE = dict.fromkeys(CASES, 1 / len(CASES))


@pytest.mark.parametrize(
    ("network", "strategy", "shares"),
    [
        ("ResNet", {"name": "FedAvg"}, BY_CASES),
        ("ResNet", {"name": "SCAFFOLD"}, ALIKE),
        ("ResNet", {"name": "qFedAvg", "q": 0}, ALIKE),
        ("DenseNet", {"name": "FedAvg"}, BY_CASES),
        ("EfficientNetBN", {"name": "FedAvg"}, BY_CASES),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("name", ""),
)
def test_the_aggregated_state_loads_strictly_and_evaluates_as_defined(
    network: str, strategy: dict[str, Any], shares: dict[str, float], tmp_path: Path
) -> None:
    study = study_of(network, strategy)
    states, after = trained_states(study)
    save_checkpoint(tmp_path, after, study.strategy.shared_layout(build_network(study)))
    loaded = load_file(tmp_path / "weights.safetensors")
    expected = as_defined(states, shares)
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {
        name: tensor.dtype for name, tensor in states["north"].items()
    }
    found, reference = build_network(study), build_network(study).double()
    found.load_state_dict(loaded, strict=True)
    reference.load_state_dict(expected, strict=True)
    counted = [name for name in loaded if name.endswith("num_batches_tracked")]
    assert counted
    assert all(int(loaded[name]) == 3 for name in counted)  # north took three steps of four cases
    images = to_input(drawn("east").images, torch.device("cpu"))
    with torch.no_grad():
        logits, exact = found.eval()(images), reference.eval()(images.double())
    np.testing.assert_allclose(logits.numpy(), exact.numpy(), rtol=2e-4, atol=2e-5)


def test_averaging_variances_alone_would_evaluate_otherwise() -> None:
    """The test above can tell the difference."""
    study = study_of("ResNet", {"name": "FedAvg"})
    states, after = trained_states(study)
    layout = study.strategy.shared_layout(build_network(study))
    names = [entry.name for entry in layout.buffers]
    variances = [place for place, name in enumerate(names) if name.endswith("running_var")]
    ends = np.cumsum([0, *(entry.size for entry in layout.buffers)])
    plain = after.buffers.copy()
    for place in variances:
        both = sum(states[site][names[place]].numpy() * share for site, share in BY_CASES.items())
        plain[ends[place] : ends[place + 1]] = both
    assert not np.allclose(plain, after.buffers, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("strategy", ["Median", "TrimmedMean", "GeometricMedian"])
def test_after_a_robust_strategy_counters_are_still_whole_and_variances_not_negative(strategy: str) -> None:
    study = study_of("ResNet", {"name": strategy})
    states, after = trained_states(study)
    assert after.counters.dtype == np.int64
    counts = [int(next(v for n, v in state.items() if n.endswith("tracked"))) for state in states.values()]
    assert set(after.counters.tolist()) == {sorted(counts)[1]}
    layout = study.strategy.shared_layout(build_network(study))
    ends = np.cumsum([0, *(entry.size for entry in layout.buffers)])
    for place, entry in enumerate(layout.buffers):
        if entry.name.endswith("running_var"):
            assert (after.buffers[ends[place] : ends[place + 1]] >= 0).all()
