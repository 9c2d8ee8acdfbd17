"""Self-attention between all positions of a feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .norm import GroupNorm


class SpatialAttention(nn.Module):
    """x + attention(norm(x)) over the h*w positions; the original networks have one head of full width."""

    def __init__(self, channels: int, num_heads: int = 1, groups: int = 32, eps: float = 1e-6):
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(channels, groups, eps)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """n c h w to n c h w."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # n (h w) c: a view of NHWC memory
        q, k, v = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # n heads (h w) c/heads
            for layer in (self.query, self.key, self.value)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(h).transpose(1, 2).unflatten(2, x.shape[2:])
