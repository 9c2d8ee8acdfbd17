"""The U-Net discriminator: one logit for the image, and one for every pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import SLOPE, BlurPool, check_size, conv


class UNetDiscriminator(nn.Module):
    """An encoder with one logit for the whole image, and a decoder with skip connections with one for every pixel.

    Source: Schönfeld et al. 2020 (arXiv 2002.12655), with spectral norm as there, without its CutMix.
    """

    def __init__(self, in_channels: int = 3, channels: int = 32, num_layers: int = 3, spectral: bool = True):
        super().__init__()
        self.least_size = 2**num_layers
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        pairs = list(pairwise(widths))
        self.conv_in = conv(in_channels, channels, spectral=spectral)
        self.down = nn.ModuleList(conv(inner, outer, spectral=spectral) for inner, outer in pairs)
        self.pool = nn.ModuleList(BlurPool(outer) for _, outer in pairs)
        self.up = nn.ModuleList(conv(outer + inner, inner, spectral=spectral) for inner, outer in reversed(pairs))
        self.image_out = conv(widths[-1], 1, 1, spectral=spectral)
        self.pixel_out = conv(channels, 1, 1, spectral=spectral)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images n c h w in [-1,1] to [logits of images n 1 1 1, logits of pixels n 1 h w].

        Errors: ConfigError for crops below `least_size`.
        """
        check_size(images, self.least_size, "unet")
        x = F.leaky_relu(self.conv_in(images), SLOPE)
        skips = []
        for layer, pool in zip(self.down, self.pool, strict=True):
            skips.append(x)
            x = F.leaky_relu(pool(layer(x)), SLOPE)
        image_logits = self.image_out(x.mean((2, 3), keepdim=True))
        for layer, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = F.leaky_relu(layer(torch.cat([x, skip], 1)), SLOPE)
        return [image_logits, self.pixel_out(x)]
