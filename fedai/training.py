"""Local training, written out: draw a batch, augment it, step, until the epochs are over."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedai.errors import TrainingError
from fedai.registry import Loss, Optimizer, Transform
from fedai.study import Training
from fedai.tasks import classification, segmentation
from fedai.tasks.classification import to_input

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.uint8]
"""int64 [N], a class for each image; or uint8 [N, rows, columns], masks with a structure for each pixel."""


class TaskCode(Protocol):
    """What the loop needs of a task's module."""

    def build_loss(
        self, loss: Loss, class_counts: Sequence[int], device: torch.device, /
    ) -> Callable[[Tensor, Tensor], Tensor]: ...
    def augment_both(
        self, batch: Tensor, labels: Tensor, transforms: Sequence[Transform], generator: torch.Generator, /
    ) -> tuple[Tensor, Tensor]: ...


def task_of(labels: Labels) -> TaskCode:
    """The module for labels of this form."""
    return segmentation if labels.ndim > 1 else classification


@dataclass(frozen=True)
class Trained:
    """What came of local training: the mean loss of the last epoch, training cases, optimizer steps, and the
    sum of the steps' learning rates.
    """

    loss: float
    cases: int
    steps: int
    travel: float = 0.0


def device_of_choice() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_of(*parts: object) -> int:
    """A 63-bit seed from words and numbers, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def train(
    network: nn.Module,
    images: Images,
    labels: Labels,
    training: Training,
    *,
    classes: int,
    epochs: int,
    seed: int,
    before: int = 0,
    bend: Callable[[], None] = lambda: None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Trained:
    """Train `network` in place on uint8 [N, 1, rows, columns] and labels; `classes`: logits of an image, or
    of a pixel.

    `before`: epochs of the same run that were trained already, for a learning rate that falls over the run.
    `bend` may change the gradients before each step, as some strategies do.
    `may_go_on` is asked before every batch; a no raises TrainingError, as do an empty cohort and a loss
    that is not finite.
    """
    if not len(labels):
        raise TrainingError("no training case", hint="check the cohort: fedai site status")
    counts = [int(np.count_nonzero(labels == number)) for number in range(classes)]
    with torch.random.fork_rng():
        _seed_torch(seed)  # dropout draws from torch's own generator
        span = range(before, before + epochs)
        done = _run_epochs(network, images, labels, training, counts, span, seed, may_go_on, bend)
    if not np.isfinite(done.loss):
        raise TrainingError("the training loss is not finite", hint="lower training.optimizer.learning_rate")
    return done


def _seed_torch(seed: int) -> None:
    """torch.manual_seed, which without a GPU keeps a note of every call for ever."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def _run_epochs(
    network: nn.Module,
    images: Images,
    labels: Labels,
    training: Training,
    counts: list[int],
    epochs: range,
    seed: int,
    may_go_on: Callable[[], bool],
    bend: Callable[[], None],
) -> Trained:
    """The loop itself."""
    device = device_of_choice()
    network.to(device).train()
    task, optimizer = task_of(labels), _optimizer(training.optimizer, network)
    loss_of = task.build_loss(training.loss, counts, device)
    generator = torch.Generator().manual_seed(seed)
    loss_sum, rates = torch.zeros((), device=device), list[float]()
    for epoch in epochs:
        loss_sum.zero_()
        batches = list(_batches(len(labels), training.batch_size, generator))
        for position, chosen in enumerate(batches):
            if not may_go_on():
                raise TrainingError("training was stopped")
            rates.append(_set_learning_rate(optimizer, training, epoch + position / len(batches)))
            batch, wanted = to_input(images[chosen], device), torch.from_numpy(labels[chosen])
            batch, wanted = task.augment_both(
                batch, wanted.to(device, torch.int64), training.augmentation, generator
            )
            loss = loss_of(network(batch), wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            bend()
            optimizer.step()
            loss_sum += loss.detach() * len(chosen)
    return Trained(float(loss_sum) / len(labels), len(labels), len(rates), math.fsum(rates))


def _optimizer(choice: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if choice.name == "SGD":
        return torch.optim.SGD(
            parameters, lr=choice.learning_rate, momentum=choice.momentum, weight_decay=choice.weight_decay
        )
    return torch.optim.AdamW(parameters, lr=choice.learning_rate, weight_decay=choice.weight_decay)


def _set_learning_rate(optimizer: torch.optim.Optimizer, training: Training, epoch: float) -> float:
    """The study's rate, or half a cosine from it to 0 over the run (Loshchilov and Hutter, ICLR 2017)."""
    rate = training.optimizer.learning_rate
    if training.learning_rate_schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(1.0, epoch / (training.rounds * training.local_epochs)))) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _batches(cases: int, size: int, generator: torch.Generator) -> Iterator[npt.NDArray[Any]]:
    """Shuffled indices; a last batch of one case joins the one before it (no update from a single image)."""
    order = torch.randperm(cases, generator=generator).numpy()
    starts = list(range(0, cases, size))
    if len(starts) > 1 and cases - starts[-1] == 1:
        starts.pop()
    for position, start in enumerate(starts):
        yield order[start : starts[position + 1] if position + 1 < len(starts) else cases]
