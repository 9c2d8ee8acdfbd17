"""The TAESD family: convolutions and ReLU, without normalization and without a posterior.

Small enough for live previews, distilled from the VAE whose latents they share.
Source: Bohan, "Tiny AutoEncoder for Stable Diffusion".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import TinyConfig
from ..nn import GroupNorm

LIMIT = 3.0  # the decoder squashes latents softly into (-3, 3)


class TinyBlock(nn.Module):
    """relu(three convolutions of x + x); with `pool`, x first becomes x + a 1x1 branch normalized over the whole
    picture."""

    def __init__(self, channels: int, pool: bool = False):
        super().__init__()
        self.conv = nn.Sequential(
            _conv(channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(), _conv(channels, channels)
        )
        self.pool = _pool(channels) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h w."""
        if self.pool is not None:
            x = x + self.pool(x)
        return (x + self.conv(x)).relu()


class TinyEncoder(nn.Module):
    """From images to latents, which are the diffusion model's z."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        layers: list[nn.Module] = []
        width = config.in_channels
        for channels in config.stem:
            layers += [_conv(width, channels, stride=2), nn.ReLU()]
            width = channels
        last = len(config.encoder_widths) - 1
        for i, (channels, blocks) in enumerate(zip(config.encoder_widths, config.encoder_blocks, strict=True)):
            if i > 0:
                layers.append(_conv(width, channels, stride=2, bias=False))
            elif not config.stem:
                layers.append(_conv(width, channels))
            layers += [TinyBlock(channels, pool=config.mid_pool and i == last) for _ in range(blocks)]
            width = channels
        self.layers = nn.Sequential(*layers, _conv(width, config.latent_channels))

    def forward(self, images: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1] (the weights expect [0,1]) to latents n c h/f w/f."""
        return self.layers((images + 1) / 2)


class TinyDecoder(nn.Module):
    """From latents, which are the diffusion model's z, to images."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        widths, counts = config.decoder_widths[::-1], config.decoder_blocks[::-1]
        layers: list[nn.Module] = [_conv(config.latent_channels, widths[0]), nn.ReLU()]
        for i, (channels, blocks) in enumerate(zip(widths, counts, strict=True)):
            layers += [TinyBlock(channels, pool=config.mid_pool and i == 0) for _ in range(blocks)]
            if i + 1 < len(widths):
                layers += [nn.Upsample(scale_factor=2), _conv(channels, widths[i + 1], bias=False)]
        self.layers = nn.Sequential(*layers, _conv(widths[-1], config.out_channels))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents n c h w to images n 3 f*h f*w, about in [-1,1]."""
        return self.layers(torch.tanh(latents / LIMIT) * LIMIT) * 2 - 1


def _pool(channels: int) -> nn.Sequential:
    wide = 4 * channels
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        GroupNorm(wide, 4, eps=1e-5),
        nn.ReLU(),
        nn.Conv2d(wide, channels, 1, bias=False),
    )


def _conv(inner: int, outer: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=bias)
