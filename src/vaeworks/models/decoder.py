"""From latents to an image."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import AutoencoderConfig
from ..nn import GroupNorm, ResBlock, SpatialAttention, Upsample
from .middle import Middle
from .recompute import run


class DecoderLevel(nn.Module):
    """Residual blocks at one resolution, each followed by attention if configured, then doubling (not at the last
    level)."""

    def __init__(self, config: AutoencoderConfig, in_channels: int, out_channels: int, factor: int, last: bool):
        super().__init__()
        norm = (config.norm_groups, config.norm_eps * config.decoder_scale**2)
        self.blocks = nn.ModuleList(
            ResBlock(in_channels if i == 0 else out_channels, out_channels, *norm)
            for i in range(config.num_res_blocks + 1)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels, config.num_heads, *norm)
            if factor in config.attention_factors
            else nn.Identity()
            for _ in self.blocks
        )
        self.upsample = nn.Identity() if last else Upsample(out_channels)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """n c_in h w to n c_out 2h 2w (h w at the last level)."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = run(attention, run(block, x, recompute), recompute)
        return self.upsample(x)


class Decoder(nn.Module):
    """The convolutional decoder of latent diffusion (Rombach et al. 2021, arXiv 2112.10752).

    `levels` stand in order of execution: smallest image, greatest width first.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.gradient_checkpointing = False
        widths = config.decoder_widths[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        norm = (config.norm_groups, config.norm_eps * config.decoder_scale**2)
        self.middle = Middle(config, widths[0], *norm)
        self.levels = nn.ModuleList(
            DecoderLevel(config, inner, outer, 2 ** (len(widths) - 1 - i), last=i == len(widths) - 1)
            for i, (inner, outer) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.norm_out = GroupNorm(widths[-1], *norm)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Latents n c h w, unnormalized, to images n 3 f*h f*w, about in [-1,1]."""
        return self.conv_out(self.features(z))

    def features(self, z: Tensor) -> Tensor:
        """The input of the last convolution: latents n c h w to n c' f*h f*w."""
        recompute = self.gradient_checkpointing and self.training
        x = self.middle(self.conv_in(z), recompute)
        for level in self.levels:
            x = level(x, recompute)
        return self.norm_out.silu(x)
