"""Scores of a network on images, and the loss that belongs to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedai.errors import TrainingError
from fedai.tasks.classification import to_input
from fedai.training import Images, Labels, device_of_choice

SMALLEST_PROBABILITY = 1e-12


def predict(
    network: nn.Module,
    images: Images,
    batch_size: int = 128,
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> npt.NDArray[np.float64]:
    """Softmax scores float64 [N, C] for uint8 [N, 1, rows, columns].

    `may_go_on` is asked before every batch; a no raises TrainingError, as do scores that aren't finite.
    """
    device = device_of_choice()
    network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            if not may_go_on():
                raise TrainingError("scoring was stopped")
            logits = network(to_input(images[start : start + batch_size], device))
            parts.append(logits.double().softmax(dim=1).cpu().numpy())
    if not parts:
        with torch.inference_mode():
            classes = network(torch.zeros(1, *images.shape[1:], device=device)).shape[1]
        return np.zeros((0, int(classes)))
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        raise TrainingError(
            "the model's scores are not finite", hint="did training diverge? lower the learning rate"
        )
    return scores


def cross_entropy(scores: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Minus log probability of the true class, float64 [N]."""
    chosen = scores[np.arange(len(labels)), labels] if len(labels) else np.zeros(0)
    return np.asarray(-np.log(np.maximum(chosen, SMALLEST_PROBABILITY)), dtype=np.float64)
