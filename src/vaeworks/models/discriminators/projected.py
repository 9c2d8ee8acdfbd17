"""The projected discriminator: trained heads on the features of a frozen network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ...nn import GroupNorm
from .layers import SLOPE, check_size, conv

FeatureNet = Callable[[Tensor], Sequence[Tensor]]
"""From images n c h w in [-1,1] to feature maps n c_i h_i w_i, largest first; it normalizes its input itself."""


class ProjectedDiscriminator(nn.Module):
    """A head of two convolutions on every map of a frozen network, after fixed random mixing of channels and of scales.

    `features` is put into evaluation mode and never trained; it follows `.to(...)`, but is neither among the parameters
    nor in the state_dict. Its maps have `channels` channels, and it takes images of at least `least_size` pixels.
    Source: Sauer et al. 2021 (arXiv 2111.01007), 3.2: heads that saw the features themselves would look only at the
    easiest ones.
    """

    def __init__(
        self, features: FeatureNet, channels: Sequence[int], width: int = 64, least_size: int = 1, spectral: bool = True
    ):
        super().__init__()
        if not channels:
            raise ConfigError("channels must name the channels of at least one feature map")
        if isinstance(features, nn.Module):
            features.eval().requires_grad_(False)
        self._features = (features,)  # in a tuple, where nn.Module does not see it
        self.least_size = least_size
        self.mix_channels = nn.ModuleList(_FixedConv(c, width, 1) for c in channels)
        self.mix_scales = nn.ModuleList(_FixedConv(width, width, 3) for _ in channels)
        self.heads = nn.ModuleList(_head(width, spectral) for _ in channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images n c h w in [-1,1] to logits n 1 h_i w_i, one map for each feature map.

        Errors: ConfigError for crops below `least_size`, and for features of other channels than announced.
        """
        check_size(images, self.least_size, "projected")
        maps = self._features[0](images)
        if [m.shape[1] for m in maps] != [mix.channels for mix in self.mix_channels]:
            raise ConfigError(
                f"the feature network returned maps of {[m.shape[1] for m in maps]} channels, not "
                f"{[m.channels for m in self.mix_channels]}"
            )
        mixed: list[Tensor] = []
        for x, channels, scales in reversed(list(zip(maps, self.mix_channels, self.mix_scales, strict=True))):
            x = channels(x)
            if mixed:  # what the smaller maps know
                x = (x + F.interpolate(mixed[-1], size=x.shape[2:], mode="bilinear")) / 2**0.5
            mixed.append(scales(x))
        return [head(x) for head, x in zip(self.heads, reversed(mixed), strict=True)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if recurse and isinstance(self._features[0], nn.Module):
            self._features[0]._apply(fn)
        return super()._apply(fn, recurse)


def _head(width: int, spectral: bool) -> nn.Sequential:
    """GroupNorm makes it independent of the scale of the features (there: BatchNorm)."""
    norm = GroupNorm(width, math.gcd(8, width), eps=1e-5)
    return nn.Sequential(
        conv(width, width, spectral=spectral), norm, nn.LeakyReLU(SLOPE), conv(width, 1, spectral=spectral)
    )


class _FixedConv(nn.Module):
    """A convolution with random weights that are buffers: saved, moved, never trained."""

    weight: Tensor

    def __init__(self, inner: int, outer: int, size: int):
        super().__init__()
        self.channels = inner
        weight = nn.Conv2d(inner, outer, size, bias=False).weight.detach()
        self.register_buffer("weight", nn.init.kaiming_normal_(weight, nonlinearity="linear"))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), padding=self.weight.shape[-1] // 2)
