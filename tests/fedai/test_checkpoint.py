from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from studies import small_study

from fedai.checkpoint import load_checkpoint, save_checkpoint
from fedai.errors import ConfigError
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, layout_of, pack


def network_of(**network: object) -> tuple[Layout, Weights]:
    built = build_network(small_study(network=network))
    layout = layout_of(built)
    return layout, pack(built, layout)


BATCH = network_of(normalization="as_built")
GROUP = network_of()


@pytest.mark.parametrize(("layout", "weights"), [BATCH, GROUP], ids=["batch norm", "group norm"])
def test_what_is_saved_is_loaded_to_the_bit(layout: Layout, weights: Weights, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, weights, layout)
    for place in (tmp_path, tmp_path / "weights.safetensors"):
        again = load_checkpoint(place, layout)
        for part, array in weights.arrays().items():
            assert again.arrays()[part].dtype == array.dtype
            assert again.arrays()[part].tobytes() == array.tobytes()


def test_the_file_has_the_networks_own_names_and_shapes(tmp_path: Path) -> None:
    layout, weights = BATCH
    save_checkpoint(tmp_path, weights, layout)
    state = build_network(small_study(network={"normalization": "as_built"})).state_dict()
    tensors = load((tmp_path / "weights.safetensors").read_bytes())
    assert {name: array.shape for name, array in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    assert all(np.array_equal(tensors[name], state[name].numpy()) for name in state)


def test_the_manifest_says_where_it_comes_from(tmp_path: Path) -> None:
    layout, weights = GROUP
    digest = save_checkpoint(
        tmp_path, weights, layout, study="s", round=3, sites=["north"], cases=9, parent="p"
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == {
        "sha256": digest,
        "layout": layout.sha256,
        "study": "s",
        "round": 3,
        "sites": ["north"],
        "cases": 9,
        "parent": "p",
    }
    assert digest == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "manifest.json"}


def test_the_same_weights_give_the_same_file(tmp_path: Path) -> None:
    layout, weights = BATCH
    assert save_checkpoint(tmp_path / "a", weights, layout) == save_checkpoint(
        tmp_path / "b", weights, layout
    )


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, GROUP[1], GROUP[0])
    with pytest.raises(ConfigError, match="is of another network"):
        load_checkpoint(tmp_path, BATCH[0])


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", b"\xff" * 64, b'\x08\0\0\0\0\0\0\0{"a": 1}', b"PK\x03\x04"]
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        load_checkpoint(tmp_path / "w.safetensors", GROUP[0])


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    import torch

    torch.save(build_network(small_study()).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        load_checkpoint(tmp_path / "w.pt", GROUP[0])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*gone"):
        load_checkpoint(tmp_path / "gone", GROUP[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_checkpoint_that_diverged_is_refused(bad: float, tmp_path: Path) -> None:
    layout, weights = GROUP
    save_checkpoint(tmp_path, weights, layout)
    tensors = load((tmp_path / "weights.safetensors").read_bytes())
    tensors["fc.bias"][0] = bad
    (tmp_path / "weights.safetensors").write_bytes(save(tensors))
    with pytest.raises(ConfigError, match="NaN or infinity"):
        load_checkpoint(tmp_path, layout)
