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
        tokens = self.norm(x)
        return x + self.attend(tokens, *self.keys_values(tokens))

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of normalized positions n c h w: n heads h*w c/heads each."""
        return self._heads(self.key, tokens), self._heads(self.value, tokens)

    def attend(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of normalized positions n c h w, all or some, to these keys and values: n c h w."""
        h = F.scaled_dot_product_attention(self._heads(self.query, tokens), keys, values)
        return self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, tokens.shape[2:])

    def _heads(self, layer: nn.Linear, tokens: Tensor) -> Tensor:
        rows = tokens.flatten(2).transpose(1, 2)  # n (h w) c: a view of NHWC memory
        return layer(rows).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
