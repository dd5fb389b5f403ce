from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import draw_images, small_study
from torch import nn

from fedai.errors import TrainingError
from fedai.evaluation import predict
from fedai.metrics import ScoreHistogram
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.training import Trained, _batches, _optimizer, _set_learning_rate, seed_of, train
from fedai.weights import layout_of, pack

IMAGES, LABELS = draw_images(13)


def trained(study: Study, *, epochs: int = 1, seed: int = 3, **more: Any) -> tuple[Trained, np.ndarray]:
    network = build_network(study)
    facts = train(network, IMAGES, LABELS, study.training, classes=2, epochs=epochs, seed=seed, **more)
    return facts, pack(network, layout_of(network)).parameters


AUGMENTED = {"augmentation": [{"name": "RandFlip"}, {"name": "RandAffine", "rotation_degrees": 9}]}
DROPOUT = {"name": "DenseNet", "init_features": 4, "growth_rate": 4, "block_config": [2], "dropout_prob": 0.5}


def with_dropout() -> Study:
    return Study.model_validate({**small_study().model_dump(mode="json"), "network": DROPOUT})


@pytest.mark.parametrize(
    "study",
    [small_study(), small_study(training=AUGMENTED), with_dropout()],
    ids=["plain", "augmented", "dropout"],
)
def test_training_is_the_same_for_the_same_seed(study: Study) -> None:
    torch.manual_seed(1)
    first, weights = trained(study)
    torch.manual_seed(2)
    again, others = trained(study)
    assert first == again
    assert (weights == others).all()
    _, different = trained(study, seed=4)
    assert (weights != different).any()


def test_training_leaves_torchs_own_draws_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    trained(with_dropout())
    assert torch.equal(torch.rand(3), expected)


def test_the_order_of_the_cases_of_another_site_has_another_seed() -> None:
    seeds = {
        seed_of(7, site, kind, number) for site in ("a", "b") for kind in ("x", "y") for number in (1, 2)
    }
    assert len(seeds) == 8
    assert seed_of("a", "b") != seed_of("ab")
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "optimizer", [{"name": "AdamW"}, {"name": "SGD", "momentum": 0.5}], ids=["AdamW", "SGD"]
)
@pytest.mark.parametrize(
    "loss", [{"name": "CrossEntropy", "balanced": True}, {"name": "Focal"}], ids=["CE", "Focal"]
)
def test_training_learns_to_tell_what_can_be_told(optimizer: dict[str, Any], loss: dict[str, Any]) -> None:
    optimizer["learning_rate"] = 0.003 if optimizer["name"] == "AdamW" else 0.03
    wide = {"block_inplanes": [8, 8, 16, 16], "conv1_t_size": 3, "no_max_pool": True}
    study = small_study(training={"optimizer": optimizer, "loss": loss}, network=wide)
    network = build_network(study)
    images, labels = draw_images(48)
    facts = [
        train(network, images, labels, study.training, classes=2, epochs=epochs, seed=1) for epochs in (1, 6)
    ]
    assert facts[1].loss < facts[0].loss
    unseen, truth = draw_images(40, seed=9)
    assert ScoreHistogram.of(predict(network, unseen), truth).auroc()[0] > 0.95


def test_it_tells_what_it_did() -> None:
    facts, _ = trained(small_study(), epochs=2)
    assert facts.cases == 13
    assert facts.steps == 2 * 3  # of 4, 4 and 5 cases
    assert facts.loss > 0


def test_it_stops_before_the_next_batch_when_it_is_told_to() -> None:
    asked: list[bool] = []

    def may_go_on() -> bool:
        asked.append(True)
        return len(asked) <= 2

    with pytest.raises(TrainingError, match="was stopped"):
        trained(small_study(), epochs=50, may_go_on=may_go_on)
    assert len(asked) == 3


def test_an_empty_cohort_is_an_error_with_a_hint() -> None:
    with pytest.raises(TrainingError, match="no training case") as caught:
        train(nn.Identity(), IMAGES[:0], LABELS[:0], small_study().training, classes=2, epochs=1, seed=1)
    assert "fedai site status" in caught.value.hint


def test_a_loss_that_is_not_finite_is_an_error_with_a_hint() -> None:
    study = small_study(training={"optimizer": {"name": "SGD", "learning_rate": 10, "momentum": 0.99}})
    network = build_network(study)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e30)
    with pytest.raises(TrainingError, match="not finite") as caught:
        train(network, IMAGES, LABELS, study.training, classes=2, epochs=3, seed=1)
    assert "learning_rate" in caught.value.hint


def test_a_class_that_a_site_does_not_have_is_no_obstacle() -> None:
    study = small_study(training={"loss": {"name": "CrossEntropy", "balanced": True}})
    network = build_network(study)
    facts = train(network, IMAGES, LABELS * 0, study.training, classes=2, epochs=1, seed=1)
    assert np.isfinite(facts.loss)


@given(st.integers(1, 200), st.integers(2, 40), st.integers(0, 2**31))
def test_each_epoch_sees_each_case_once_and_no_image_alone(cases: int, size: int, seed: int) -> None:
    batches = list(_batches(cases, size, torch.Generator().manual_seed(seed)))
    assert Counter(np.concatenate(batches).tolist()) == Counter(range(cases))
    assert all(len(batch) > 1 for batch in batches) or cases == 1
    assert all(len(batch) <= size + 1 for batch in batches)


def test_the_order_differs_from_epoch_to_epoch() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (np.concatenate(list(_batches(30, 4, generator))).tolist() for _ in range(2))
    assert first != second


def test_frozen_parameters_stay_as_they_are() -> None:
    study = small_study()
    network = build_network(study)
    first = next(network.parameters())
    first.requires_grad = False
    before = first.clone()
    train(network, IMAGES, LABELS, study.training, classes=2, epochs=1, seed=1)
    assert torch.equal(first, before)


FALLING = {"rounds": 4, "local_epochs": 1, "learning_rate_schedule": "cosine"}


def moved(study: Study, **more: Any) -> float:
    start = pack(build_network(study), layout_of(build_network(study))).parameters
    return float(np.abs(trained(study, **more)[1] - start).mean())


def test_a_falling_learning_rate_moves_the_weights_less_from_round_to_round() -> None:
    study = small_study(training=FALLING)
    steps = [moved(study, before=round_) for round_ in range(4)]
    assert steps == sorted(steps, reverse=True)
    assert moved(study, before=4) == 0.0
    assert steps[0] < moved(small_study(training={"rounds": 4}))


def test_a_constant_learning_rate_takes_no_notice_of_the_epochs_before() -> None:
    study = small_study(training={"rounds": 4})
    assert (trained(study)[1] == trained(study, before=3)[1]).all()


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_the_learning_rate_is_half_a_cosine_over_all_rounds(optimizer: str) -> None:
    training = small_study(training={**FALLING, "optimizer": {"name": optimizer}}).training
    made = _optimizer(training.optimizer, nn.Linear(1, 1))
    rates = []
    for epoch in (0, 1, 2, 3, 4, 9):
        _set_learning_rate(made, training, epoch)
        rates.append(made.param_groups[0]["lr"] / training.optimizer.learning_rate)
    assert rates == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0])
