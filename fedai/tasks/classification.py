"""Image classification: its loss. Also what both tasks share: the network that a study names, images as its
input, and augmentations, drawn on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedai.errors import ConfigError
from fedai.registry import NETWORK_GROUP, Loss, Network, Transform
from fedai.study import Study

CHANNELS = 1


def build_network(study: Study) -> nn.Module:
    """The study's network with weights drawn from `training.seed`: the same values wherever it is built.

    Input float32 [N, 1, rows, columns] as `to_input` gives, output float32 logits: [N, C], or of a
    segmentation [N, 1 + structures, rows, columns]. Raises ConfigError where the arguments don't make a
    network that takes such images.
    """
    with torch.random.fork_rng():
        torch.manual_seed(study.training.seed)
        try:
            build: Callable[..., nn.Module] = NETWORKS.get(study.network.name, _installed)
            network = build(study.network, study.task.outputs)
            network = replace_batch_norm(network, study.network.normalization)
            logits: Tensor = network.eval()(torch.zeros(1, CHANNELS, *study.preprocessing.image_size))
        except (RuntimeError, ValueError, TypeError) as error:
            size = study.preprocessing.image_size
            raise ConfigError(
                f"the network {study.network.name} can't be built for images of {size}: {error}",
                hint="change network or preprocessing.image_size in the study",
            ) from None
    pixels = study.preprocessing.image_size if study.task.kind == "segmentation" else ()
    if tuple(logits.shape) != (1, study.task.outputs, *pixels):
        wanted = "structure and pixel" if pixels else "class"
        raise ConfigError(
            f"the network {study.network.name} gives {tuple(logits.shape)}, not one logit per {wanted}",
            hint="change network or preprocessing.image_size in the study",
        )
    return network


def _resnet(network: Any, classes: int) -> nn.Module:
    from monai.networks.nets import ResNet

    return cast(
        nn.Module,
        ResNet(
            block=network.block,
            layers=list(network.layers),
            block_inplanes=list(network.block_inplanes),
            spatial_dims=2,
            n_input_channels=CHANNELS,
            conv1_t_size=network.conv1_t_size,
            conv1_t_stride=network.conv1_t_stride,
            no_max_pool=network.no_max_pool,
            num_classes=classes,
            act=network.act,
        ),
    )


def _densenet(network: Any, classes: int) -> nn.Module:
    from monai.networks.nets import DenseNet

    return cast(
        nn.Module,
        DenseNet(
            spatial_dims=2,
            in_channels=CHANNELS,
            out_channels=classes,
            init_features=network.init_features,
            growth_rate=network.growth_rate,
            block_config=network.block_config,
            bn_size=network.bn_size,
            dropout_prob=network.dropout_prob,
            act=network.act,
        ),
    )


def _densenet121(network: Any, classes: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    return cast(
        nn.Module, DenseNet121(2, CHANNELS, classes, pretrained=False, dropout_prob=network.dropout_prob)
    )


def _efficientnet(network: Any, classes: int) -> nn.Module:
    from monai.networks.nets import EfficientNetBN

    built = EfficientNetBN(
        network.model_name, pretrained=False, spatial_dims=2, in_channels=CHANNELS, num_classes=classes
    )
    return cast(nn.Module, built)


def _seresnet50(network: Any, classes: int) -> nn.Module:
    from monai.networks.nets import SEResNet50

    return cast(
        nn.Module, SEResNet50(spatial_dims=2, in_channels=CHANNELS, num_classes=classes, pretrained=False)
    )


def _unet(network: Any, outputs: int) -> nn.Module:
    from monai.networks.nets import UNet

    return cast(
        nn.Module,
        UNet(
            spatial_dims=2,
            in_channels=CHANNELS,
            out_channels=outputs,
            channels=network.channels,
            strides=network.strides,
            num_res_units=network.num_res_units,
            norm=network.norm,
            dropout=network.dropout,
            act=network.act,
        ),
    )


def _installed(network: Any, classes: int) -> nn.Module:
    for point in entry_points(group=NETWORK_GROUP, name=network.name):
        try:
            build = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the network {network.name} can't be loaded: {error}") from None
        return cast(nn.Module, build(2, CHANNELS, classes, **network.arguments))
    raise ConfigError(f"no installed package provides the network {network.name}", hint="install it here")


NETWORKS: dict[str, Callable[[Network, int], nn.Module]] = {
    "ResNet": _resnet,
    "DenseNet": _densenet,
    "DenseNet121": _densenet121,
    "EfficientNetBN": _efficientnet,
    "SEResNet50": _seresnet50,
    "UNet": _unet,
}


def replace_batch_norm(module: nn.Module, normalization: str) -> nn.Module:
    """Put GroupNorm or InstanceNorm in the place of every BatchNorm; changes `module`."""
    if normalization == "as_built":
        return module
    for name, child in list(module.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            channels = child.num_features
            groups = channels if normalization == "instance" else group_count(channels)
            setattr(module, name, nn.GroupNorm(groups, channels, eps=child.eps))
        else:
            replace_batch_norm(child, normalization)
    return module


def group_count(channels: int) -> int:
    """At most 8 groups, of at least two channels each: one value normalized by itself is always zero."""
    return math.gcd(8, channels // 2) if channels % 2 == 0 else 1


def build_loss(
    loss: Loss, class_counts: Sequence[int], device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The study's loss over logits [N, C, ...] and labels int64 [N, ...]; `class_counts` are those of the
    training cases, or pixels.
    """
    if loss.name == "Focal":
        from monai.losses import FocalLoss

        return cast(
            Callable[[Tensor, Tensor], Tensor],
            _OneHot(FocalLoss(gamma=loss.gamma, use_softmax=True), len(class_counts)),
        )
    if loss.name != "CrossEntropy":
        raise ConfigError(f"the loss {loss.name} is not for classification", hint="change it in the study")
    weight = balanced_weights(class_counts).to(device) if loss.balanced else None
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=loss.label_smoothing)


class _OneHot(nn.Module):
    """MONAI's focal loss wants one-hot targets of the logits' shape."""

    def __init__(self, loss: nn.Module, classes: int) -> None:
        super().__init__()
        self.loss, self.classes = loss, classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        target = nn.functional.one_hot(labels, self.classes).to(logits.dtype)
        return cast(Tensor, self.loss(logits[..., None, None], target[..., None, None]))


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """Inverse class frequency, float32 [C], mean 1 over the cases; a class without cases weighs 0."""
    counts = torch.tensor(class_counts, dtype=torch.float32)
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), torch.zeros_like(counts))


def to_input(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [N, 1, rows, columns] -> float32 on the device, each image with mean 0 and standard deviation 1.

    What is left of a scanner's gain and offset after the percentile window goes; a constant image becomes 0.
    """
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()
    mean = batch.mean(dim=(1, 2, 3), keepdim=True)
    return (batch - mean) / batch.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp_min(1.0)


def augment(batch: Tensor, transforms: Sequence[Transform], generator: torch.Generator) -> Tensor:
    """Apply the study's transforms to float32 [N, 1, rows, columns]; draws come from `generator` (on the
    CPU).
    """
    for transform in transforms:
        batch = TRANSFORMS[transform.name](batch, transform, generator)
    return batch


def augment_both(
    batch: Tensor, labels: Tensor, transforms: Sequence[Transform], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented images with their labels, which stay as they are."""
    return augment(batch, transforms, generator), labels


def _draw(batch: Tensor, generator: torch.Generator, spread: float = 1.0) -> Tensor:
    """One uniform draw in [-spread, spread] per image."""
    return (torch.rand(len(batch), generator=generator) * 2 - 1).mul_(spread).to(batch.device)


def _flip(batch: Tensor, transform: Any, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(batch), generator=generator) < transform.probability
    flipped = batch.flip(-1 if transform.axis == "horizontal" else -2)
    return torch.where(chosen.to(batch.device)[:, None, None, None], flipped, batch)


def affine(batch: Tensor, transform: Any, generator: torch.Generator, mode: str = "bilinear") -> Tensor:
    """RandAffine, with `mode` of `grid_sample`."""
    angle = _draw(batch, generator, math.radians(transform.rotation_degrees))
    zoom = 1 + _draw(batch, generator, transform.zoom_fraction)
    shift_x, shift_y = (_draw(batch, generator, 2 * transform.shift_fraction) for _ in range(2))
    top = torch.stack([zoom * angle.cos(), -zoom * angle.sin(), shift_x], dim=1)
    bottom = torch.stack([zoom * angle.sin(), zoom * angle.cos(), shift_y], dim=1)
    grid = nn.functional.affine_grid(
        torch.stack([top, bottom], dim=1), list(batch.shape), align_corners=False
    )
    return nn.functional.grid_sample(batch, grid, mode=mode, padding_mode="border", align_corners=False)


def _scale_intensity(batch: Tensor, transform: Any, generator: torch.Generator) -> Tensor:
    contrast = 1 + _draw(batch, generator, transform.contrast_fraction)
    brightness = _draw(batch, generator, transform.brightness_fraction)
    return batch * contrast[:, None, None, None] + brightness[:, None, None, None]


def _noise(batch: Tensor, transform: Any, generator: torch.Generator) -> Tensor:
    noise = torch.randn(batch.shape, generator=generator).mul_(transform.std)
    return batch + noise.to(batch.device)


TRANSFORMS: dict[str, Callable[[Tensor, Any, torch.Generator], Tensor]] = {
    "RandFlip": _flip,
    "RandAffine": affine,
    "RandScaleIntensity": _scale_intensity,
    "RandGaussianNoise": _noise,
}
