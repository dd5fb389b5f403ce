from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import small_study

from fedai.registry import (
    CrossEntropy,
    Focal,
    RandAffine,
    RandFlip,
    RandGaussianNoise,
    RandScaleIntensity,
    Transform,
)
from fedai.tasks.classification import augment, balanced_weights, build_loss, to_input

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(cases: int = 4) -> torch.Tensor:
    return torch.rand(cases, 1, 9, 9, generator=seeded(5)) * 2 - 1


def test_each_image_gets_mean_zero_and_deviation_one_whatever_its_gain_and_offset() -> None:
    grey = np.random.default_rng(0).integers(0, 120, (1, 1, 8, 8)).astype(np.uint8)
    images = np.concatenate([grey, grey * 2 + 10])
    first, second = to_input(images, CPU)
    assert first.dtype == torch.float32
    assert first.mean().item() == pytest.approx(0, abs=1e-6)
    assert first.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(first, second, atol=1e-5)


def test_a_constant_image_becomes_zeros() -> None:
    assert to_input(np.full((2, 1, 4, 4), 77, np.uint8), CPU).abs().max().item() == 0


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=8).filter(any))
def test_balanced_weights_are_one_on_average_and_even_between_the_classes(counts: list[int]) -> None:
    weights, numbers = balanced_weights(counts).double(), torch.tensor(counts, dtype=torch.float64)
    shares = weights * numbers
    assert float(shares.sum() / numbers.sum()) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(shares[numbers > 0], shares[numbers > 0][:1].expand((numbers > 0).sum()), rtol=1e-5)
    assert not weights[numbers == 0].any()


def test_cross_entropy_is_torchs_own() -> None:
    logits, labels = torch.randn(6, 3, generator=seeded()), torch.tensor([0, 1, 2, 0, 1, 0])
    plain = build_loss(CrossEntropy(label_smoothing=0.1), [3, 2, 1], CPU)(logits, labels)
    assert plain == torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    weighted = build_loss(CrossEntropy(balanced=True), [3, 2, 1], CPU)(logits, labels)
    by_class = -logits.log_softmax(1)[torch.arange(6), labels]
    expected = torch.stack([by_class[labels == k].mean() for k in range(3)]).mean()
    assert float(weighted) == pytest.approx(float(expected), rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy_over_the_classes() -> None:
    logits, labels = torch.randn(6, 3, generator=seeded()), torch.tensor([0, 1, 2, 0, 1, 0])
    found = build_loss(Focal(name="Focal", gamma=0.0), [3, 2, 1], CPU)(logits, labels)
    assert float(found) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)) / 3, rel=1e-5
    )


def test_focal_loss_counts_a_sure_case_less() -> None:
    loss = build_loss(Focal(name="Focal", gamma=2.0), [1, 1], CPU)
    entropy = build_loss(CrossEntropy(), [1, 1], CPU)
    labels = torch.tensor([1])
    sure, unsure = torch.tensor([[-3.0, 3.0]]), torch.tensor([[0.0, 0.2]])
    assert loss(sure, labels) / entropy(sure, labels) < 0.01 * loss(unsure, labels) / entropy(unsure, labels)


EVERY: tuple[Transform, ...] = (
    RandFlip(name="RandFlip"),
    RandFlip(name="RandFlip", axis="vertical", probability=0.3),
    RandAffine(name="RandAffine", rotation_degrees=20, zoom_fraction=0.2, shift_fraction=0.1),
    RandScaleIntensity(name="RandScaleIntensity", contrast_fraction=0.2, brightness_fraction=0.1),
    RandGaussianNoise(name="RandGaussianNoise"),
)


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: transform.name)
def test_an_augmentation_is_drawn_from_its_seed_alone(transform: Transform) -> None:
    torch.manual_seed(1)
    first = augment(pictures(), [transform], seeded(3))
    torch.manual_seed(2)
    assert torch.equal(augment(pictures(), [transform], seeded(3)), first)
    assert not torch.equal(
        augment(pictures(16), [transform], seeded(4)), augment(pictures(16), [transform], seeded(3))
    )
    assert first.shape == pictures().shape
    assert torch.isfinite(first).all()


STILL: tuple[Transform, ...] = (
    RandFlip(name="RandFlip", probability=0),
    RandAffine(name="RandAffine"),
    RandScaleIntensity(name="RandScaleIntensity"),
    RandGaussianNoise(name="RandGaussianNoise", std=0),
)


@pytest.mark.parametrize("transform", STILL, ids=lambda transform: transform.name)
def test_an_augmentation_of_nothing_changes_nothing(transform: Transform) -> None:
    assert torch.allclose(augment(pictures(), [transform], seeded()), pictures(), atol=1e-6)


def test_a_certain_flip_mirrors_each_image_along_its_axis() -> None:
    sideways = RandFlip(name="RandFlip", probability=1)
    assert torch.equal(augment(pictures(), [sideways], seeded()), pictures().flip(-1))
    upside = RandFlip(name="RandFlip", probability=1, axis="vertical")
    assert torch.equal(augment(pictures(), [upside], seeded()), pictures().flip(-2))


def test_each_image_has_a_draw_of_its_own() -> None:
    alike = pictures(1).repeat(64, 1, 1, 1)
    flipped = (augment(alike, [RandFlip(name="RandFlip")], seeded()) != alike).flatten(1).any(1)
    assert 10 < int(flipped.sum()) < 54
    brightness = RandScaleIntensity(name="RandScaleIntensity", brightness_fraction=0.1)
    moved = (augment(alike, [brightness], seeded()) - alike).flatten(1)
    assert moved.abs().max() <= 0.1 + 1e-6
    assert len(moved.mean(1).unique()) > 60
    assert torch.allclose(moved, moved.mean(1, keepdim=True).expand_as(moved), atol=1e-6)


def test_a_shift_moves_the_picture_by_a_fraction_of_its_side_at_most() -> None:
    dot = torch.full((64, 1, 21, 21), -1.0)
    dot[:, :, 10, 10] = 1
    moved = augment(dot, [RandAffine(name="RandAffine", shift_fraction=0.2)], seeded()) + 1
    places = torch.arange(21.0)
    for axis in (2, 3):
        mass = moved.sum(dim=5 - axis).squeeze(1)
        centre = (mass * places).sum(1) / mass.sum(1)
        assert ((centre - 10).abs() <= 0.2 * 21 + 0.01).all()
        assert (centre - 10).abs().max() > 0.1 * 21


def test_the_small_study_has_no_augmentation() -> None:
    assert torch.equal(augment(pictures(), small_study().training.augmentation, seeded()), pictures())
