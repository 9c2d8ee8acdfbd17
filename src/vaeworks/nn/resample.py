"""Halving and doubling of feature maps, exactly as the KL-f8 family does it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import Conv3x3


class Downsample(nn.Module):
    """3x3 convolution with stride 2 after one row and one column of zeros at the bottom and the right only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h/2 w/2."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c 2h 2w."""
        return self.conv.doubled(x)
