"""From an image to the moments of its latents."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import AutoencoderConfig
from ..nn import Downsample, GroupNorm, ResBlock, SpatialAttention
from .middle import Middle
from .recompute import run


class EncoderLevel(nn.Module):
    """Residual blocks at one resolution, each followed by attention if configured, then halving (not at the last
    level)."""

    def __init__(self, config: AutoencoderConfig, in_channels: int, out_channels: int, factor: int, last: bool):
        super().__init__()
        norm = (config.norm_groups, config.norm_eps * config.encoder_scale**2)
        self.blocks = nn.ModuleList(
            ResBlock(in_channels if i == 0 else out_channels, out_channels, *norm) for i in range(config.num_res_blocks)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels, config.num_heads, *norm)
            if factor in config.attention_factors
            else nn.Identity()
            for _ in self.blocks
        )
        self.downsample = nn.Identity() if last else Downsample(out_channels)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """n c_in h w to n c_out h/2 w/2 (h w at the last level)."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = run(attention, run(block, x, recompute), recompute)
        return self.downsample(x)


class Encoder(nn.Module):
    """The convolutional encoder of latent diffusion (Rombach et al. 2021, arXiv 2112.10752)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.gradient_checkpointing = False
        widths = config.widths
        self.conv_in = nn.Conv2d(config.in_channels, config.channels, 3, padding=1)
        self.levels = nn.ModuleList(
            EncoderLevel(config, inner, outer, 2**i, last=i == len(widths) - 1)
            for i, (inner, outer) in enumerate(zip((config.channels, *widths), widths, strict=False))
        )
        norm = (config.norm_groups, config.norm_eps * config.encoder_scale**2)
        self.middle = Middle(config, widths[-1], *norm)
        self.norm_out = GroupNorm(widths[-1], *norm)
        self.conv_out = nn.Conv2d(widths[-1], config.moment_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1] to moments n 2c h/f w/f (n c h/f w/f without a posterior)."""
        recompute = self.gradient_checkpointing and self.training
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x, recompute)
        x = self.middle(x, recompute)
        return self.conv_out(self.norm_out.silu(x))
