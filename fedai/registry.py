"""The closed registry: every network, loss, optimizer and transform that a study may name.

A study names things; it never names a class or module path. Shapes (channels in, classes out) come from the
task, not from the study. What is listed here is MONAI's own (networks, losses) and torch's (optimizers). A
site or a coordinator may add networks by installing a package with an entry point in the group
`fedai.networks`: the choice to install it is theirs, and a study can only name what is installed.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fedai.yamlfile import Frozen

NETWORK_GROUP = "fedai.networks"
BUILT_IN = ("ResNet", "DenseNet", "DenseNet121", "EfficientNetBN", "SEResNet50")
INSTALLED = "(installed)"
Blocks = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=4, max_length=4)]
Normalization = Literal["as_built", "group", "instance"]
Activation = Literal["relu", "leakyrelu", "prelu", "gelu", "elu", "swish", "mish"]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Network(Frozen):
    """`normalization: group | instance` replaces every BatchNorm of the built network (MONAI's own `norm`
    argument leaves some in place), so that no running statistics exist to be averaged."""

    normalization: Normalization = "as_built"


class ResNet(_Network):
    """monai.networks.nets.ResNet (He et al., CVPR 2016)."""

    name: Literal["ResNet"]
    block: Literal["basic", "bottleneck"] = "basic"
    layers: Annotated[Blocks, Field(min_length=4, max_length=4)] = (2, 2, 2, 2)
    block_inplanes: Widths = (64, 128, 256, 512)
    conv1_t_size: Annotated[int, Field(ge=1, le=15)] = 7
    conv1_t_stride: Annotated[int, Field(ge=1, le=4)] = 2
    no_max_pool: bool = False
    act: Activation = "relu"


class DenseNet(_Network):
    """monai.networks.nets.DenseNet (Huang et al., CVPR 2017)."""

    name: Literal["DenseNet"]
    init_features: Annotated[int, Field(ge=1, le=512)] = 64
    growth_rate: Annotated[int, Field(ge=1, le=256)] = 32
    block_config: Blocks = (6, 12, 24, 16)
    bn_size: Annotated[int, Field(ge=1, le=16)] = 4
    dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0
    act: Activation = "relu"


class DenseNet121(_Network):
    """monai.networks.nets.DenseNet121, from random weights (nothing is ever downloaded)."""

    name: Literal["DenseNet121"]
    dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0


class EfficientNetBN(_Network):
    """monai.networks.nets.EfficientNetBN (Tan and Le, ICML 2019), from random weights."""

    name: Literal["EfficientNetBN"]
    model_name: Literal["efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3"] = (
        "efficientnet-b0"
    )


class SEResNet50(_Network):
    """monai.networks.nets.SEResNet50 (Hu et al., CVPR 2018), from random weights."""

    name: Literal["SEResNet50"]


class InstalledNetwork(_Network):
    """A network that this installation provides through the entry point group `fedai.networks`.

    The entry point is a function `(spatial_dims, in_channels, out_channels, **arguments) -> torch.nn.Module`.
    """

    name: str
    arguments: dict[str, int | float | bool | str] = Field(default_factory=dict)


def installed_networks() -> list[str]:
    """Names of the networks that installed packages provide; nothing is imported."""
    return sorted({point.name for point in entry_points(group=NETWORK_GROUP)})


def _network_tag(value: Any) -> str:
    """A built-in name wins over an installed one, and no study can say the tag itself."""
    name = str(value.get("name", "")) if isinstance(value, dict) else str(getattr(value, "name", ""))
    if name in BUILT_IN or name not in installed_networks():
        return "" if name == INSTALLED else name
    return INSTALLED


Network = Annotated[
    Annotated[ResNet, Tag("ResNet")]
    | Annotated[DenseNet, Tag("DenseNet")]
    | Annotated[DenseNet121, Tag("DenseNet121")]
    | Annotated[EfficientNetBN, Tag("EfficientNetBN")]
    | Annotated[SEResNet50, Tag("SEResNet50")]
    | Annotated[InstalledNetwork, Tag(INSTALLED)],
    Discriminator(_network_tag),
]


class CrossEntropy(Frozen):
    """torch.nn.CrossEntropyLoss; `balanced` weighs classes by the inverse of their count in the site's
    training cases.
    """

    name: Literal["CrossEntropy"] = "CrossEntropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    balanced: bool = False


class Focal(Frozen):
    """monai.losses.FocalLoss over the softmax (Lin et al., ICCV 2017)."""

    name: Literal["Focal"]
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0


Loss = Annotated[CrossEntropy | Focal, Field(discriminator="name")]


class AdamW(Frozen):
    """torch.optim.AdamW (Loshchilov and Hutter, ICLR 2019)."""

    name: Literal["AdamW"] = "AdamW"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4


class SGD(Frozen):
    """torch.optim.SGD with momentum."""

    name: Literal["SGD"]
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


Optimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


class RandFlip(Frozen):
    """Mirror an image; the name and meaning of MONAI's transform, applied to the whole batch at once."""

    name: Literal["RandFlip"]
    probability: Probability = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"


class RandAffine(Frozen):
    """Rotate, zoom and shift each image by its own draw, in one `grid_sample` for the batch."""

    name: Literal["RandAffine"]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RandScaleIntensity(Frozen):
    """Contrast and brightness: x * (1 + c) + b, drawn for each image (of standard deviation 1)."""

    name: Literal["RandScaleIntensity"]
    contrast_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    brightness_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RandGaussianNoise(Frozen):
    """White noise of the given standard deviation (images have 1)."""

    name: Literal["RandGaussianNoise"]
    std: Annotated[float, Field(ge=0, le=1)] = 0.02


Transform = Annotated[
    RandFlip | RandAffine | RandScaleIntensity | RandGaussianNoise, Field(discriminator="name")
]
