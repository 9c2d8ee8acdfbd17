"""The residual block of the KL-f8 family."""

from __future__ import annotations

from torch import Tensor, nn

from .conv import Conv3x3
from .norm import GroupNorm


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on x where the widths differ."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 32, eps: float = 1e-6):
        super().__init__()
        self.norm1 = GroupNorm(in_channels, groups, eps)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.norm2 = GroupNorm(out_channels, groups, eps)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """n c_in h w to n c_out h w."""
        h = self.conv1(self.norm1.silu(x))
        h = self.conv2(self.norm2.silu(h))
        return self.conv_shortcut(x) + h
