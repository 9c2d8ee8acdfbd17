"""Layers that several discriminators share. All can be differentiated twice, as gradient penalties need."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError

SLOPE = 0.2  # of every leaky ReLU


class BlurPool(nn.Module):
    """Halving after a binomial low-pass filter, so that no frequency above the new limit folds back (Zhang 2019, arXiv
    1904.11486)."""

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[int, ...] = (1, 3, 3, 1)):
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        self.channels = channels
        self.register_buffer(
            "kernel", torch.outer(line, line).expand(channels, 1, -1, -1).contiguous(), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h/2 w/2; sides of at least 2."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel.to(x.dtype), stride=2, groups=self.channels)


def conv(inner: int, outer: int, size: int = 3, spectral: bool = False) -> nn.Module:
    """A convolution that keeps height and width, He-initialized for a leaky ReLU; `spectral`: its largest singular
    value is held at 1."""
    layer = nn.Conv2d(inner, outer, size, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return nn.utils.parametrizations.spectral_norm(layer) if spectral else layer


def check_size(images: Tensor, least: int, what: str) -> None:
    """Errors: ConfigError for images with a side below `least`."""
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise ConfigError(
            f"crops of {height}x{width} are too small for the {what} discriminator, which needs at least "
            f"{least}x{least}"
        )
