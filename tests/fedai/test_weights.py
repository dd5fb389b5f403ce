from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import small_study
from torch import nn

from fedai.errors import TrainingError
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, applied, difference, layout_of, pack, unpack


class Odd(nn.Module):
    """What a network may hold: a frozen parameter, a scalar, integers, booleans, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.Parameter(torch.randn(2, 3), requires_grad=False)
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.first = nn.Linear(4, 4)
        self.tied = self.first
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("large", torch.tensor([2**53 + 1, -5]))
        self.register_buffer("passing", torch.ones(3), persistent=False)


def densenet121() -> nn.Module:
    data = small_study(preprocessing={"image_size": [32, 32]}).model_dump(mode="json")
    return build_network(Study.model_validate({**data, "network": {"name": "DenseNet121"}}))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "odd": Odd,
    "group": lambda: build_network(small_study()),
    "batch": lambda: build_network(small_study(network={"normalization": "as_built"})),
    "DenseNet121": densenet121,
}


def stir(network: nn.Module, seed: int) -> None:
    """New values in every tensor, large and small, also in the counters."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 10.0 ** (seed % 40 - 20))
        elif tensor.dtype == torch.bool:
            tensor.logical_not_()
        else:
            tensor.add_(2**40 + seed)


@pytest.mark.parametrize(
    "name", ["odd", "group", "batch", pytest.param("DenseNet121", marks=pytest.mark.slow)]
)
def test_what_is_packed_and_unpacked_is_the_same_to_the_bit(name: str) -> None:
    network, other = NETWORKS[name](), NETWORKS[name]()
    layout = layout_of(network)
    for seed in range(3):
        stir(network, seed)
        unpack(pack(network, layout), other, layout)
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[key]), key
            assert tensor.numpy().tobytes() == other.state_dict()[key].numpy().tobytes(), key


def test_the_layout_names_every_tensor_of_the_state_once() -> None:
    for name, build in NETWORKS.items():
        network = build()
        layout = layout_of(network)
        named = [
            entry.name for part in (layout.parameters, layout.buffers, layout.counters) for entry in part
        ]
        state = set(network.state_dict()) - {"tied.weight", "tied.bias"}
        assert len(named) == len(set(named)), name
        assert set(named) == state, name


def test_parameters_buffers_and_counters_are_kept_apart() -> None:
    layout = layout_of(NETWORKS["DenseNet121"]())
    assert all("running" in entry.name and entry.dtype == "float32" for entry in layout.buffers)
    assert all("num_batches" in entry.name and entry.dtype == "int64" for entry in layout.counters)
    assert layout.sizes()["counters"] == len(layout.counters) == len(layout.buffers) / 2 == 121


def test_what_is_packed_is_a_copy() -> None:
    network = NETWORKS["group"]()
    layout = layout_of(network)
    kept = pack(network, layout)
    before = kept.parameters.copy()
    stir(network, 1)
    assert (kept.parameters == before).all()


def test_a_layout_is_the_same_after_json() -> None:
    layout = layout_of(NETWORKS["batch"]())
    again = Layout.from_json(layout.to_json())
    assert again == layout
    assert again.sha256 == layout.sha256
    assert layout_of(NETWORKS["group"]()).sha256 != layout.sha256


@pytest.mark.parametrize("part", ["parameters", "buffers", "counters"])
def test_arrays_of_another_size_are_refused(part: str) -> None:
    network = NETWORKS["batch"]()
    layout = layout_of(network)
    arrays = dict(pack(network, layout).arrays())
    arrays[part] = arrays[part][:-1]
    with pytest.raises(TrainingError, match=f"{part} have shape"):
        unpack(Weights.of(arrays), network, layout)


floats = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=20), st.integers(0, 2**60))
def test_a_start_and_its_difference_give_what_came_after(
    pairs: list[tuple[float, float]], count: int
) -> None:
    start, after = (
        Weights(np.array(v, np.float32), np.array(v, np.float32), np.array([count + i], np.int64))
        for i, v in enumerate(zip(*pairs, strict=True))
    )
    again = applied(start, difference(after, start))
    np.testing.assert_allclose(again.parameters, after.parameters, rtol=1e-6, atol=0.2)
    assert (again.buffers == after.buffers).all()
    assert (again.counters == after.counters).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["parameters", "buffers"])
def test_one_value_that_is_not_finite_is_seen(bad: float, part: str) -> None:
    network = NETWORKS["batch"]()
    weights = pack(network, layout_of(network))
    assert weights.is_finite()
    getattr(weights, part)[3] = bad
    assert not weights.is_finite()
