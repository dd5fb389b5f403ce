from __future__ import annotations

import numpy as np
import pytest
import torch
from studies import draw_images, small_study
from torch import nn

from fedai.errors import TrainingError
from fedai.evaluation import cross_entropy, predict
from fedai.tasks.classification import build_network, to_input

IMAGES, LABELS = draw_images(11)


def test_scores_are_the_softmax_of_the_networks_logits_whatever_the_batch() -> None:
    network = build_network(small_study())
    scores = predict(network, IMAGES)
    with torch.no_grad():
        expected = network(to_input(IMAGES, torch.device("cpu"))).double().softmax(1).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    np.testing.assert_allclose(predict(network, IMAGES, batch_size=3), scores, atol=1e-6)
    assert scores.dtype == np.float64


def test_scoring_is_stopped_before_the_next_batch() -> None:
    asked = iter([True, True, False])
    with pytest.raises(TrainingError, match="scoring was stopped"):
        predict(build_network(small_study()), IMAGES, batch_size=2, may_go_on=lambda: next(asked))
    assert list(asked) == []


def test_judging_changes_nothing_in_the_network() -> None:
    network = build_network(small_study(network={"normalization": "as_built"})).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network, IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_no_image_gives_no_row_but_every_column() -> None:
    assert predict(build_network(small_study()), IMAGES[:0]).shape == (0, 2)
    assert cross_entropy(np.zeros((0, 2)), LABELS[:0]).shape == (0,)


class Broken(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.full((len(batch), 2), float("nan"))


def test_scores_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(TrainingError, match="scores are not finite"):
        predict(Broken(), IMAGES)


def test_cross_entropy_is_minus_the_log_of_the_true_classs_score() -> None:
    found = cross_entropy(np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]), np.array([0, 1, 1]))
    assert found[:2].tolist() == pytest.approx([np.log(4), np.log(2)])
    assert 20 < found[2] < 30
