"""The closed registry: every network, loss, optimizer and transform that a study may name.

A study names things; it never names a class or module path. Shapes (channels in, classes out) come from the
task, not from the study. What is listed here is MONAI's own (networks, losses) and torch's (optimizers). A
site or a coordinator may add networks by installing a package with an entry point in the group
`fedai.networks`: the choice to install it is theirs, and a study can only name what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fedai.yamlfile import Frozen

NETWORK_GROUP = "fedai.networks"
BUILT_IN = ("ResNet", "DenseNet", "DenseNet121", "EfficientNetBN", "SEResNet50", "UNet")
SEGMENTING = frozenset({"UNet"})  # of the networks that are built in; the others classify
LOSSES_OF = {
    "classification": frozenset({"CrossEntropy", "Focal"}),
    "segmentation": frozenset({"CrossEntropy", "Dice", "DiceCE"}),
}
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


class UNet(_Network):
    """monai.networks.nets.UNet (Ronneberger et al., MICCAI 2015; with residual units Kerfoot et al., 2019).

    One stride fewer than channels; rows and columns must be multiples of the product of the strides.
    """

    name: Literal["UNet"]
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=2, max_length=8)
    ] = (16, 32, 64, 128)
    strides: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1, max_length=7)] = (
        2, 2, 2,
    )  # fmt: skip
    num_res_units: Annotated[int, Field(ge=0, le=8)] = 2
    norm: Literal["instance", "batch"] = "instance"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    act: Activation = "prelu"

    @model_validator(mode="after")
    def _one_stride_fewer(self) -> UNet:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides")
        return self


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
    | Annotated[UNet, Tag("UNet")]
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


class Dice(Frozen):
    """monai.losses.DiceLoss over the softmax (Milletari et al., 3DV 2016); `batch`: over all pixels of a
    batch together, not image by image.
    """

    name: Literal["Dice"]
    include_background: bool = False
    batch: bool = True


class DiceCE(Frozen):
    """monai.losses.DiceCELoss: the sum of Dice and cross-entropy, each with its weight."""

    name: Literal["DiceCE"]
    include_background: bool = False
    batch: bool = True
    lambda_dice: Annotated[float, Field(ge=0, le=100)] = 1.0
    lambda_ce: Annotated[float, Field(ge=0, le=100)] = 1.0


Loss = Annotated[CrossEntropy | Focal | Dice | DiceCE, Field(discriminator="name")]


def task_misfits(study: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """(place, what is wrong) of what a study's raw keys name that isn't for its task; tolerant of other
    mistakes.
    """
    kind = _part(study, "task").get("kind", "classification")
    if not isinstance(kind, str) or kind not in LOSSES_OF:
        return []
    found: list[tuple[tuple[str, ...], str]] = []
    network, loss = _part(study, "network").get("name"), _part(study, "training", "loss").get("name")
    if network in BUILT_IN and (network in SEGMENTING) != (kind == "segmentation"):
        found.append((("network", "name"), f"{network} is not for {kind}"))
    known = frozenset[str]().union(*LOSSES_OF.values())
    if isinstance(loss, str) and loss in known - LOSSES_OF[kind]:
        found.append((("training", "loss", "name"), f"the loss {loss} is not for {kind}"))
    if kind == "segmentation":
        judged = _part(study, "judgement")
        odd = [name for name in ("decision_thresholds", "margin", "subgroups") if judged.get(name)]
        found += [
            (("judgement", name), f"{name} is of scores, which a segmentation has none of") for name in odd
        ]
    return found


def _part(study: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The keys below `names`, none where there are no such."""
    place: Any = study
    for name in names:
        place = place.get(name) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else {}


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
