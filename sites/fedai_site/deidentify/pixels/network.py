"""The detector's network: where in a grey picture is text? A small residual network with a feature pyramid.

Imports torch, so it is imported only when pixels are looked at. Pyramid after Lin et al., CVPR 2017; residual
blocks after He et al., CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDE = 4
"""One cell of the output is so many pixels wide and high."""
WIDTHS = (32, 64, 96, 128)
NEIGHBOURHOOD = 15
"""Pixels across over which the local mean is taken."""


def features(pictures: Tensor) -> Tensor:
    """(N, 1, H, W) display grey levels 0..255 -> (N, 3, H, W): the grey level, and how far it is from the
    mean
    around it, finely (for contrast of a few grey levels) and coarsely.
    """
    apart = pictures - local_mean(local_mean(pictures, 2), 3)
    return torch.cat([pictures / 127.5 - 1, torch.tanh(apart / 8), torch.tanh(apart / 48)], 1)


def local_mean(values: Tensor, axis: int) -> Tensor:
    """Mean over NEIGHBOURHOOD pixels along one axis, fewer at the edges; by running sums, in float32."""
    length, reach = values.shape[axis], NEIGHBOURHOOD // 2
    sums = values.float().cumsum(axis)
    sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], axis)
    ends = (torch.arange(length) + reach + 1).clamp(max=length)
    starts = (torch.arange(length) - reach).clamp(min=0)
    counts = (ends - starts).reshape([-1 if at == axis else 1 for at in range(values.dim())])
    return (sums.index_select(axis, ends) - sums.index_select(axis, starts)) / counts


def convolution(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)

    def forward(self, values: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return torch.relu(values + self.second(torch.relu(self.first(values))))


class Stage(nn.Module):
    """Halves the picture and looks again."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.down = convolution(inputs, outputs, 2)
        self.blocks = nn.Sequential(*(Block(outputs) for _ in range(blocks)))

    def forward(self, values: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2)."""
        out: Tensor = self.blocks(torch.relu(self.down(values)))
        return out


def folded(network: TextNetwork) -> TextNetwork:
    """The network, for looking only, with each batch normalisation multiplied into its convolution."""
    for part in network.eval().modules():
        if not isinstance(part, nn.Sequential):
            continue
        first, last = part[0], part[-1]
        if isinstance(first, nn.Conv2d) and isinstance(last, nn.BatchNorm2d):
            part[0], part[1] = fuse_conv_bn_eval(first, last), nn.Identity()
    for weights in network.parameters():
        if weights.dim() == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return network


class TextNetwork(nn.Module):
    """Grey pictures in, one logit of "here is text" for each cell of 4 x 4 pixels out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 16, 2)
        self.stages = nn.ModuleList(
            Stage(inputs, outputs, blocks)
            for inputs, outputs, blocks in zip((16, *WIDTHS[:-1]), WIDTHS, (1, 2, 2, 2), strict=True)
        )
        self.sideways = nn.ModuleList(convolution(width, 48, size=1) for width in WIDTHS)
        self.smooth = convolution(48, 32)
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 1, H, W) display grey levels 0..255, H and W multiples of 32 -> logits (N, 1, H / 4, W / 4)."""
        values = torch.relu(self.stem(features(pictures)))
        levels: list[Tensor] = []
        for stage, sideways in zip(self.stages, self.sideways, strict=True):
            values = stage(values)
            levels.append(sideways(values))
        merged = levels.pop()
        while levels:
            merged = levels.pop() + nn.functional.interpolate(merged, scale_factor=2.0, mode="nearest")
        logits: Tensor = self.head(torch.relu(self.smooth(torch.relu(merged))))
        return logits
