"""The discriminator of R3GAN: a residual network without normalization."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...errors import ConfigError
from .layers import SLOPE, BlurPool, check_size

GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a leaky ReLU


class GroupedBlock(nn.Module):
    """x + 1x1(act(3x3 in groups(act(1x1(x))))): the block of ResNeXt, widened inside, which begins as the identity."""

    def __init__(self, channels: int, expansion: int, group_size: int):
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1)
        self.grouped = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_size)
        self.project = nn.Conv2d(wide, channels, 1, bias=False)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h w."""
        return x + self.project(self.act(self.grouped(self.act(self.expand(x)))))


class ResidualDiscriminator(nn.Module):
    """Grouped residual blocks, anti-aliased halvings, and one logit for every 4x4 cells of the smallest map.

    Nothing is normalized: the scale is kept by Fixup's initialization (Zhang et al. 2019, arXiv 1901.09321), and
    stability is left to the relativistic loss with gradient penalties (losses/adversarial.py). A crop of 32 pixels
    (three halvings) gets one logit.
    Source: Huang et al. 2024 (arXiv 2501.05441), section 4.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: int = 64,
        num_layers: int = 3,
        num_blocks: int = 1,
        expansion: int = 2,
        group_size: int = 16,
    ):
        super().__init__()
        if channels * expansion % group_size:
            raise ConfigError(
                f"channels (={channels}) times expansion (={expansion}) must be a multiple of group_size "
                f"(={group_size})"
            )
        self.least_size = 3 * 2**num_layers + 1  # halvings round up
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 1)]
        for i, width in enumerate(widths):
            if i > 0:
                layers += [BlurPool(widths[i - 1], (1, 2, 1)), nn.Conv2d(widths[i - 1], width, 1, bias=False)]
            layers += [GroupedBlock(width, expansion, group_size) for _ in range(num_blocks)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False), nn.Conv2d(widths[-1], 1, 1, bias=False)
        )
        _fixup_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images n c h w in [-1,1] to logits n 1 h' w', h' = ceil(h / 2**num_layers) - 3.

        Errors: ConfigError for crops below `least_size`.
        """
        check_size(images, self.least_size, "residual")
        return self.head(self.layers(images))


def _fixup_(network: nn.Module) -> None:
    """Zero the last layer of each of L branches, scale the m - 1 others by L ** (-1 / (2m - 2)), m = 3; keep the
    variance elsewhere."""
    blocks = [module for module in network.modules() if isinstance(module, GroupedBlock)]
    inside = {id(layer) for block in blocks for layer in (block.expand, block.grouped)}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            gain = GAIN * len(blocks) ** -0.25 if id(layer) in inside else 1.0
            nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in blocks:
        nn.init.zeros_(block.project.weight)
