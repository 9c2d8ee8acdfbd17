"""3x3 convolutions that keep height and width, with the fastest algorithm for training on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .filtering import F2, F4, DoubledConv, Filtering
from .winograd import minimal_filtering

LEAST_CHANNELS = {torch.float32: 64, torch.float64: 64, torch.bfloat16: 128}
LEAST_TILES = {torch.float32: 64, torch.float64: 64, torch.bfloat16: 256}
LEAST_DOUBLED = 32
"""Channels and tiles below which PyTorch's own convolution is as fast or faster (measured: docs/log.md)."""


class Conv3x3(nn.Conv2d):
    """A convolution with zero padding of one pixel. Its weights and their names are nn.Conv2d's."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n o h w."""
        return convolved(x, self) if self.training else super().forward(x)

    def doubled(self, x: Tensor) -> Tensor:
        """The convolution of x with every pixel four times, nearest-neighbour doubling: n c h w to n o 2h 2w."""
        if self.training and _can(x, self) and min(self.weight.shape[:2]) >= LEAST_DOUBLED:
            return _filtered(x, self, DoubledConv())
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def convolved(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The layer's output in training, n c h w to n o h w: by Winograd's filtering where it applies and is faster."""
    if _can(x, layer):
        dtype = _dtype(x)
        filtering = F2() if dtype == torch.bfloat16 else F4()
        count = x.shape[0] * (x.shape[2] // filtering.advance) * (x.shape[3] // filtering.advance)
        whole = not (x.shape[2] % filtering.advance or x.shape[3] % filtering.advance)
        if whole and min(layer.weight.shape[:2]) >= LEAST_CHANNELS[dtype] and count >= LEAST_TILES[dtype]:
            return _filtered(x, layer, filtering)
    return nn.Conv2d.forward(layer, x)


def _can(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether this is a plain 3x3 convolution with a gradient, in NHWC memory on a CPU."""
    plain = (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding == (1, 1)
        and layer.groups == 1
    )
    return (
        plain
        and layer.padding_mode == "zeros"
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and _dtype(x) in LEAST_CHANNELS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
    )


def _dtype(x: Tensor) -> torch.dtype:
    """The type of the computation: autocast's, except for fp64, which autocast leaves as it is."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64 else x.dtype


def _filtered(x: Tensor, layer: nn.Conv2d, filtering: Filtering) -> Tensor:
    dtype = _dtype(x)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return minimal_filtering(x.to(dtype), layer.weight.to(dtype), bias, filtering)
