"""MobileNetV2 without its classifier, as Keras trained it: a small network whose 1280 features sets of images are
compared in.

Source: Sandler et al. 2018 (arXiv 1801.04381). Keras pads as TensorFlow does, more at the right and at the bottom.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 1280

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block."""


class ConvNormReLU6(nn.Sequential):
    """Convolution that leaves sides of ⌈side / stride⌉, batch normalization, ReLU6 where `active`."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__(
            nn.Conv2d(inner, outer, kernel, stride, groups=groups, bias=False), nn.BatchNorm2d(outer, eps=1e-3)
        )
        self.kernel, self.stride, self.active = kernel, stride, active

    def forward(self, x: Tensor) -> Tensor:
        """n c h w."""
        down, right = (
            max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0) for side in x.shape[-2:]
        )
        x = super().forward(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))
        return F.relu6(x) if self.active else x


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; the input is added where the shape allows."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int):
        super().__init__()
        wide = inner * expansion
        widen = [ConvNormReLU6(inner, wide)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen, ConvNormReLU6(wide, wide, 3, stride, groups=wide), ConvNormReLU6(wide, outer, active=False)
        )
        self.adds = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """n c h w."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """Images to 1280 features. 2.2 M weights; frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormReLU6(3, 32, 3, 2)]
        inner = 32
        for expansion, channels, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(inner, channels, stride if block == 0 else 1, expansion))
                inner = channels
        self.features = nn.Sequential(*layers, ConvNormReLU6(inner, FEATURES))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1], of any size, to n 1280: the mean over places."""
        return self.features(images).mean((2, 3))
