"""The computing of every side that isn't fedai: a small MONAI network, one epoch, one evaluation."""

from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import ResNet
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH = 16
LEARNING_RATE = 0.001


def build() -> nn.Module:
    """The network of study.yaml."""
    return ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 16, 32],
        spatial_dims=2, n_input_channels=1, num_classes=2, conv1_t_stride=1,
    )  # fmt: skip


def flatten(network: nn.Module) -> NDArray[np.float32]:
    """All values of the state in a row, float32."""
    return np.concatenate(
        [value.numpy().ravel().astype(np.float32) for value in network.state_dict().values()]
    )


def restore(values: NDArray[np.float32], network: nn.Module) -> nn.Module:
    """The reverse of `flatten`, into `network`."""
    flat, start = torch.from_numpy(values.copy()), 0
    state = {}
    for name, value in network.state_dict().items():
        state[name] = flat[start : start + value.numel()].reshape(value.shape).to(value.dtype)
        start += value.numel()
    network.load_state_dict(state)
    return network


def train(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """One epoch; the mean loss."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    total, order = 0.0, torch.randperm(len(labels))
    for start in range(0, len(labels), BATCH):
        chosen = order[start : start + BATCH]
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)
    return total / len(labels)


def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy."""
    network.eval()
    with torch.inference_mode():
        logits = network(images)
        hits = (logits.argmax(1) == labels).double().mean().item()
        return nn.functional.cross_entropy(logits, labels).item(), hits


def load(path: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images float32 [N, 1, rows, columns] in [-1, 1] and labels of a split."""
    with np.load(path) as data:
        images = torch.from_numpy(data[f"{split}_images"]).float() / 127.5 - 1
        return images, torch.from_numpy(data[f"{split}_labels"])
