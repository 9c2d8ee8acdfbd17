"""Group normalization, with the SiLU that follows it almost everywhere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018, arXiv 1803.08494) in n c h w, optionally followed by SiLU."""

    def __init__(self, channels: int, groups: int = 32, eps: float = 1e-6):
        super().__init__(groups, channels, eps=eps)

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the normalized x: n c h w to n c h w."""
        return F.silu(self(x))
