"""Show 4: an update that holds an image is caught; honest updates are not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from fedai_site.tripwire import MOST_PATTERNS, Tripwire, check_pixels, lay, patterns_of
from hypothesis import given, settings
from hypothesis import strategies as st
from replies_to import reply_to, task_of
from studies import small_study

from fedai.errors import RefusedByPolicy
from fedai.tasks.classification import build_network
from fedai.training import train
from fedai.weights import difference, layout_of, pack

SIDE = 32
HONEST = 200
Images = np.ndarray[Any, np.dtype[np.uint8]]


def draw_smooth(cases: int, seed: int, side: int = SIDE) -> Images:
    """uint8 [cases, 1, side, side] like radiographs: soft structures, some noise, a dark rim without any."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.rand((cases, 1, side + 8, side + 8), generator=generator)
    soft = torch.nn.functional.avg_pool2d(field, 9, stride=1) * 6 - 2.5
    noisy = soft + 0.02 * torch.randn(soft.shape, generator=generator)
    pixels = (noisy.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    pixels[:, :, :3] = 0
    return np.asarray(pixels)


IMAGES = draw_smooth(40, seed=1)


@cache
def wire_of(seed: int = 1) -> Tripwire:
    return lay([draw_smooth(40, seed)])


def noise(size: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 1e-3, size).astype(np.float32)


def planted(image: Images, at: int, scale: float, shift: float = 0.0, size: int = 20_000) -> Any:
    """Noise that holds an image from `at` on, scaled and shifted."""
    values = noise(size)
    flat = image.reshape(-1).astype(np.float32)
    values[at : at + len(flat)] = flat * np.float32(scale) + np.float32(shift)
    return values


@given(
    st.integers(0, len(IMAGES) - 1),
    st.integers(0, 20_000 - SIDE * SIDE),
    st.floats(1e-6, 10) | st.floats(-10, -1e-6),
    st.floats(-1, 1),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_planted_image_is_found_wherever_it_lies_and_however_it_is_scaled(
    number: int, at: int, scale: float, shift: float, mirrored: bool
) -> None:
    image = IMAGES[number, :, :, ::-1] if mirrored else IMAGES[number]
    shift *= abs(scale)  # of a shift far above the image's own range float32 keeps none of the image
    assert wire_of().finds(planted(image, at, scale, shift))


@pytest.mark.parametrize("rows", [(0, 16), (10, 20), (24, 32)])
def test_a_piece_of_an_image_is_found(rows: tuple[int, int]) -> None:
    piece = IMAGES[3, 0, rows[0] : rows[1]]
    assert wire_of().finds(planted(piece, 777, 0.01))


@pytest.mark.parametrize("share", [0.005, 0.01])
def test_an_image_under_some_noise_is_found(share: float) -> None:
    values = planted(IMAGES[5], 4000, 1 / 255)
    values += np.random.default_rng(4).normal(0, share, len(values)).astype(np.float32)
    assert wire_of().finds(values)


def test_an_image_in_any_dtype_and_shape_is_found() -> None:
    for dtype in ("float32", "float64", "int64", "uint32"):
        assert wire_of().finds(IMAGES[7].astype(dtype).reshape(4, -1))


@pytest.mark.parametrize("size", [0, 1, 32, 33, 127, 128])
def test_short_arrays_are_looked_at_without_a_fault(size: int) -> None:
    assert not wire_of().finds(noise(size))
    assert not wire_of().finds(np.zeros(size, np.float32))


def test_arrays_that_hardly_vary_are_no_images() -> None:
    ramp = np.arange(5_000, dtype=np.float32)
    for values in (ramp, -ramp, np.zeros(5_000), np.tile([0.0, 1.0], 2_500)):
        assert not wire_of().finds(values)
    flat = lay([np.full((3, 1, 16, 16), 7, np.uint8)])
    assert not len(flat.patterns)
    assert not flat.finds(np.full(1000, 7.0))
    assert not lay([np.empty((0, 1, 16, 16), np.uint8)]).finds(noise(100))


def test_of_many_images_as_many_patterns_are_kept_as_there_is_room_for() -> None:
    images = np.random.default_rng(3).integers(0, 256, (2_000, 1, 40, 40), np.uint8)
    wire = lay([images[:500], images[500:]])
    assert MOST_PATTERNS / 4 < len(wire.patterns) <= MOST_PATTERNS
    assert wire.finds(planted(images[1_999], 12_345, 0.1))
    assert wire.finds(planted(images[0], 0, 0.1))


def test_a_pattern_has_a_bit_for_each_step_that_rises() -> None:
    values = np.random.default_rng(2).normal(size=100).astype(np.float32)
    for place, code in enumerate(patterns_of(values).tolist()):
        steps = "".join("1" if values[place + n + 1] > values[place + n] else "0" for n in range(32))
        assert code == int(steps, 2)


NETWORKS: list[dict[str, Any]] = [{"normalization": "group"}, {"normalization": "as_built"}]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "AdamW", "learning_rate": 0.003}, {"name": "SGD", "learning_rate": 0.05},
]  # fmt: skip


@cache
def honest_updates() -> list[tuple[Images, dict[str, Any]]]:
    """Images and the arrays of an update that was trained on them, round after round, for each network and
    optimizer.
    """
    found = []
    for normalization, optimizer in itertools.product(NETWORKS, OPTIMIZERS):
        study = small_study(network=normalization, training={"optimizer": optimizer, "batch_size": 6})
        network = build_network(study)
        layout = layout_of(network)
        for number in range(HONEST // 4):
            images, start = draw_smooth(6, seed=1000 + len(found)), pack(network, layout)
            labels = np.arange(len(images), dtype=np.int64) % 2
            train(network, images, labels, study.training, classes=2, epochs=1, before=number,
                  seed=number, may_go_on=lambda: True)  # fmt: skip
            found.append((images, dict(difference(pack(network, layout), start).arrays())))
    return found


@pytest.mark.slow
def test_two_hundred_honest_updates_pass() -> None:
    task = task_of("train")
    assert len(honest_updates()) == HONEST
    for images, arrays in honest_updates():
        assert np.abs(arrays["parameters"]).max() > 0
        check_pixels(replace(reply_to(task), arrays=arrays), lay([images]))


@pytest.mark.parametrize("number", range(0, HONEST, 40))
def test_the_same_updates_with_an_image_planted_are_refused(number: int) -> None:
    images, arrays = honest_updates()[number]
    parameters = arrays["parameters"].copy()
    scale = np.abs(parameters).max() / 255
    parameters[500 : 500 + SIDE * SIDE] = images[1].reshape(-1) * scale
    reply = replace(reply_to(task_of("train")), arrays={**arrays, "parameters": parameters})
    with pytest.raises(RefusedByPolicy, match=r"MEMORISED_IMAGE.*array parameters holds a piece"):
        check_pixels(reply, lay([images]))


def memorise(images: Images, weight: float) -> Any:
    """The update of a dense layer's first row after one step of gradient descent on one image."""
    layer = torch.nn.Linear(SIDE * SIDE, 4)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=weight)
    pixels = torch.from_numpy(images[:1].reshape(1, -1).astype(np.float32) / 255)
    torch.nn.functional.cross_entropy(layer(pixels), torch.tensor([2])).backward()
    optimizer.step()
    return (layer.weight.detach() - before).numpy()


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_a_dense_layer_that_learnt_from_one_image_is_caught(weight: float) -> None:
    """The gradient of its weights is the image itself (Geiping et al., NeurIPS 2020, proposition 3.1)."""
    images = draw_smooth(6, seed=5)
    assert lay([images]).finds(memorise(images, weight))


def test_without_images_there_is_nothing_to_compare() -> None:
    check_pixels(reply_to(task_of("ready")), None)
