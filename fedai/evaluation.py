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


def outline(
    network: nn.Module,
    images: Images,
    masks: npt.NDArray[np.uint8],
    batch_size: int = 16,
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """The likeliest structure of each pixel, uint8 [N, rows, columns], for images uint8 [N, 1, rows,
    columns]; and the mean over a case's pixels of minus log probability of the true one, float64 [N].

    `may_go_on` is asked before every batch; a no raises TrainingError, as do logits that aren't finite.
    """
    device = device_of_choice()
    network.to(device).eval()
    outlines, losses = np.zeros_like(masks), np.zeros(len(masks))
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            if not may_go_on():
                raise TrainingError("scoring was stopped")
            part = slice(start, start + batch_size)
            logits = network(to_input(images[part], device)).double()
            true = torch.from_numpy(masks[part]).to(device, torch.int64)
            by_pixel = nn.functional.cross_entropy(logits, true, reduction="none")
            outlines[part] = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
            losses[part] = by_pixel.mean(dim=(1, 2)).cpu().numpy()
    if not np.isfinite(losses).all():
        raise TrainingError(
            "the model's outputs are not finite", hint="did training diverge? lower the learning rate"
        )
    return outlines, losses


def case_losses(
    network: nn.Module, images: Images, labels: Labels, *, may_go_on: Callable[[], bool] = lambda: True
) -> npt.NDArray[np.float64]:
    """Cross-entropy of each case, float64 [N]; of a mask the mean over its pixels."""
    if labels.dtype == np.uint8:
        return outline(network, images, labels.astype(np.uint8, copy=False), may_go_on=may_go_on)[1]
    return cross_entropy(predict(network, images, may_go_on=may_go_on), labels)


def cross_entropy(scores: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Minus log probability of the true class, float64 [N]."""
    chosen = scores[np.arange(len(labels)), labels] if len(labels) else np.zeros(0)
    return np.asarray(-np.log(np.maximum(chosen, SMALLEST_PROBABILITY)), dtype=np.float64)
