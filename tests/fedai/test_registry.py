from __future__ import annotations

import inspect
import types
import typing
from importlib import metadata
from typing import Any

import pytest
import torch
from monai.networks import nets
from studies import SIX, SMALL, small_study
from torch import nn

from fedai import registry
from fedai.errors import ConfigError
from fedai.registry import BUILT_IN, NETWORK_GROUP, SEGMENTING
from fedai.study import Study
from fedai.tasks.classification import NETWORKS, TRANSFORMS, build_network, group_count
from fedai.weights import layout_of, pack

SMALLEST: dict[str, dict[str, Any]] = {
    "ResNet": {"layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8]},
    "DenseNet": {"init_features": 8, "growth_rate": 4, "block_config": [2, 2], "bn_size": 2},
    "DenseNet121": {},
    "EfficientNetBN": {},
    "SEResNet50": {},
    "UNet": {"channels": [4, 8], "strides": [2], "norm": "batch"},
}


def study_with(
    name: str, *, image_size: int = 32, classes: list[str] | None = None, **arguments: Any
) -> Study:
    network = {"name": name, **SMALLEST.get(name, {}), **arguments}
    data = {**SMALL, "network": network, "preprocessing": {"image_size": [image_size, image_size]}}
    named = classes or SMALL["task"]["classes"]
    outlines = {"kind": "segmentation", "structures": named}
    return Study.model_validate({**data, "task": outlines if name in SEGMENTING else {"classes": named}})


def members(alias: Any) -> tuple[Any, ...]:
    union = typing.get_args(alias)[0]
    assert typing.get_origin(union) in (typing.Union, types.UnionType)
    return tuple(
        typing.get_args(kind)[0] if typing.get_origin(kind) else kind for kind in typing.get_args(union)
    )


def test_the_built_in_names_are_those_that_can_be_built() -> None:
    models = {kind.__name__ for kind in members(registry.Network)}
    assert set(BUILT_IN) == set(NETWORKS) == models - {"InstalledNetwork"}
    assert set(TRANSFORMS) == {kind.__name__ for kind in members(registry.Transform)}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_argument_that_a_study_may_give_is_one_of_monais(name: str) -> None:
    classes = [kind for kind in getattr(nets, name).__mro__ if kind.__module__.startswith("monai")]
    theirs = {parameter for kind in classes for parameter in inspect.signature(kind.__init__).parameters}
    ours = set(getattr(registry, name).model_fields) - {"name", "normalization"}
    assert ours <= theirs


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_every_argument_of_an_optimizer_is_one_of_torchs(kind: str) -> None:
    theirs = set(inspect.signature(getattr(torch.optim, kind).__init__).parameters)
    assert {f.replace("learning_rate", "lr") for f in getattr(registry, kind).model_fields} - {
        "name"
    } <= theirs


@pytest.mark.parametrize("activation", typing.get_args(registry.Activation))
def test_every_activation_is_one_of_monais(activation: str) -> None:
    build_network(study_with("ResNet", act=activation))


@pytest.mark.parametrize(
    "model", typing.get_args(registry.EfficientNetBN.model_fields["model_name"].annotation)
)
def test_every_efficientnet_is_one_of_monais(model: str) -> None:
    assert (
        model in nets.EfficientNetBN.get_model_names()
        if hasattr(nets.EfficientNetBN, "get_model_names")
        else True
    )
    assert build_network(study_with("EfficientNetBN", model_name=model)) is not None


@pytest.mark.parametrize("classes", [["a", "b"], SIX])
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_name_builds_monais_network_with_one_logit_per_class_or_structure(
    name: str, classes: list[str]
) -> None:
    network = build_network(study_with(name, classes=classes))
    assert isinstance(network, getattr(nets, name))
    logits = (3, 1 + len(classes), 32, 32) if name in SEGMENTING else (3, len(classes))
    assert network.eval()(torch.zeros(3, 1, 32, 32)).shape == logits


@pytest.mark.parametrize("normalization", ["group", "instance"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_normalization_replaces_every_batch_norm(name: str, normalization: str) -> None:
    def count(network: nn.Module, kind: Any) -> int:
        return sum(isinstance(module, kind) for module in network.modules())

    batch = nn.modules.batchnorm._BatchNorm
    before = build_network(study_with(name, image_size=64))
    after = build_network(study_with(name, image_size=64, normalization=normalization))
    assert count(before, batch) > 0
    assert count(after, batch) == 0
    assert count(after, nn.GroupNorm) == count(before, batch) + count(before, nn.GroupNorm)
    assert not layout_of(after).buffers
    assert not layout_of(after).counters


@pytest.mark.parametrize("channels", range(1, 70))
def test_no_group_is_of_one_channel(channels: int) -> None:
    groups = group_count(channels)
    assert channels % groups == 0
    assert groups <= 8
    assert channels // groups >= 2 or channels == 1


def test_a_network_that_normalizes_single_values_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="more than 1 value per channel"):
        build_network(small_study(network={"normalization": "instance"}))


def test_instance_normalization_has_a_group_for_each_channel() -> None:
    groups = [
        m
        for m in build_network(study_with("ResNet", image_size=64, normalization="instance")).modules()
        if isinstance(m, nn.GroupNorm)
    ]
    assert all(module.num_groups == module.num_channels for module in groups)


@pytest.mark.parametrize("name", ["ResNet", "DenseNet"])
def test_the_same_seed_gives_the_same_first_weights_and_leaves_torchs_own_draws_alone(name: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    networks = [build_network(study_with(name)) for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    first, second = (pack(network, layout_of(network)).parameters for network in networks)
    assert (first == second).all()
    other = build_network(small_study(training={"seed": 8}))
    assert not torch.equal(next(other.parameters()), next(build_network(small_study()).parameters()))


def test_a_network_that_can_not_take_the_images_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="DenseNet121 can't be built for images of"):
        build_network(study_with("DenseNet121", image_size=16))


def add_entry_point(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As if a package with this entry point were installed."""
    point = metadata.EntryPoint(name, value, NETWORK_GROUP)

    def found(**wanted: str) -> list[metadata.EntryPoint]:
        matches = wanted.get("group") == NETWORK_GROUP and wanted.get("name") in (None, name)
        return [point] if matches else []

    monkeypatch.setattr("fedai.registry.entry_points", found)
    monkeypatch.setattr("fedai.tasks.classification.entry_points", found)


def linear(spatial_dims: int, in_channels: int, out_channels: int, *, width: int = 3) -> nn.Module:
    """A network as another package would provide it."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(width), nn.Flatten(), nn.Linear(width * width * in_channels, out_channels)
    )


def test_an_installed_network_can_be_named_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    add_entry_point(monkeypatch, "Tiny", f"{__name__}:linear")
    study = study_with("Tiny", arguments={"width": 2})
    assert sum(p.numel() for p in build_network(study).parameters()) == 2 * 2 * 2 + 2


@pytest.mark.parametrize(
    ("value", "arguments"),
    [(f"{__name__}:gone", {}), ("no_such_package:x", {}), (f"{__name__}:linear", {"depth": 3})],
)
def test_an_installed_network_that_fails_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch, value: str, arguments: dict[str, int]
) -> None:
    add_entry_point(monkeypatch, "Tiny", value)
    with pytest.raises(ConfigError, match="Tiny"):
        build_network(study_with("Tiny", arguments=arguments))


def test_an_installed_network_does_not_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    add_entry_point(monkeypatch, "ResNet", f"{__name__}:linear")
    assert isinstance(build_network(study_with("ResNet")), nets.ResNet)


def test_a_network_that_is_installed_elsewhere_only_is_named_as_missing() -> None:
    with pytest.raises(ValueError, match="Tiny"):
        study_with("Tiny")


def test_no_builder_ever_asks_for_pretrained_weights() -> None:
    sources = [inspect.getsource(builder) for builder in NETWORKS.values()]
    assert not any("pretrained=True" in source for source in sources)
    for name in ("DenseNet121", "EfficientNetBN", "SEResNet50"):
        assert "pretrained=False" in inspect.getsource(NETWORKS[name])
