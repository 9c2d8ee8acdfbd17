"""PatchGAN without aliasing convolutions, BatchNorm and 4x4 kernels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ...nn import GroupNorm
from .layers import SLOPE, BlurPool, check_size, conv


class ModernPatchDiscriminator(nn.Module):
    """Convolutions, anti-aliased halvings, and GroupNorm or none; at three levels it sees 70x70 pixels, as PatchGAN
    does.

    After the discriminator of MaskBit (Weber et al. 2024, arXiv 2409.16211); spectral norm: Miyato et al. 2018 (arXiv
    1802.05957).
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: int = 64,
        num_layers: int = 3,
        norm: Literal["group", "none"] = "group",
        spectral: bool = False,
    ):
        super().__init__()
        self.least_size = 2**num_layers
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers: list[nn.Module] = [conv(in_channels, channels, spectral=spectral), nn.LeakyReLU(SLOPE)]
        for inner, outer in pairwise(widths):
            layers += [conv(inner, outer, spectral=spectral), BlurPool(outer), *_norm(outer, norm), nn.LeakyReLU(SLOPE)]
        layers += [conv(widths[-1], widths[-1], spectral=spectral), *_norm(widths[-1], norm), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, conv(widths[-1], 1, spectral=spectral))

    def forward(self, images: Tensor) -> Tensor:
        """Images n c h w in [-1,1] to logits n 1 h' w', h' = h / 2**num_layers.

        Errors: ConfigError for crops below `least_size`.
        """
        check_size(images, self.least_size, "modern")
        return self.layers(images)


def _norm(channels: int, norm: str) -> list[nn.Module]:
    return [GroupNorm(channels, math.gcd(32, channels), eps=1e-5)] if norm == "group" else []
