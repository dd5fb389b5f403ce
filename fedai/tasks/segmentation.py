"""Segmentation: its losses over pixels, and augmentations that move an image and its mask together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedai.registry import Loss, Transform
from fedai.tasks import classification
from fedai.tasks.classification import TRANSFORMS, affine

MOVING: dict[str, Callable[[Tensor, Any, torch.Generator], Tensor]] = {
    "RandFlip": TRANSFORMS["RandFlip"],
    "RandAffine": partial(affine, mode="nearest"),
}
"""The transforms that move pixels, as they are done to a mask."""


def build_loss(
    loss: Loss, pixel_counts: Sequence[int], device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The study's loss over logits [N, C, rows, columns] and masks int64 [N, rows, columns]."""
    if loss.name not in ("Dice", "DiceCE"):
        return classification.build_loss(loss, pixel_counts, device)
    from monai.losses import DiceCELoss, DiceLoss

    options = {
        "softmax": True,
        "to_onehot_y": True,
        "include_background": loss.include_background,
        "batch": loss.batch,
    }
    if loss.name == "DiceCE":
        return _Channelled(DiceCELoss(**options, lambda_dice=loss.lambda_dice, lambda_ce=loss.lambda_ce))
    return _Channelled(DiceLoss(**options))


class _Channelled(nn.Module):
    """MONAI's losses want masks with a channel."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        return cast(Tensor, self.loss(logits, masks[:, None]))


def augment_both(
    batch: Tensor, masks: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented images float32 [N, 1, rows, columns] and masks int64 [N, rows, columns], moved by the same
    draws; a mask takes the nearest pixel's label.
    """
    for transform in transforms:
        before = generator.get_state()
        batch = TRANSFORMS[transform.name](batch, transform, generator)
        if transform.name in MOVING:
            after = generator.get_state()
            generator.set_state(before)
            moved = MOVING[transform.name](masks[:, None].to(batch.dtype), transform, generator)
            masks = moved[:, 0].to(masks.dtype)
            generator.set_state(after)
    return batch, masks
