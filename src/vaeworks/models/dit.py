"""A small diffusion transformer: it predicts the velocity of a flow from noisy tokens, a time and a class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DiTConfig


class DiT(nn.Module):
    """Peebles & Xie 2022 (arXiv 2212.09748), with adaLN-Zero; queries and keys are RMS-normalized (Dehghani et al.
    2023, arXiv 2302.05442).

    grid: tokens along a side; token_width: numbers of a token; classes: 1 where there are none.
    """

    def __init__(self, config: DiTConfig, grid: int, token_width: int, classes: int = 1):
        super().__init__()
        d = config.width
        self.embed = nn.Linear(token_width, d)
        self.register_buffer("positions", positions(grid, d), persistent=False)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.label = nn.Embedding(classes, d)
        self.blocks = nn.ModuleList(DiTBlock(d, config.heads) for _ in range(config.depth))
        self.modulation = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, token_width)
        self._init()

    def _init(self) -> None:
        """As DiT: Xavier for linear layers, small normal for embeddings, 0 for modulations and the last layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedding in (*self.time.parameters(), self.label.weight):
            if embedding.ndim == 2:
                nn.init.normal_(embedding, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith("modulation.weight") or name == "out.weight":
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Velocity of tokens x: n k token_width, at times t: n, in [0,1], of classes labels: n; of x's shape, in
        float32."""
        condition = F.silu(self.time(frequencies(t, self.label.embedding_dim)) + self.label(labels))
        h = self.embed(x) + self.positions
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
        return self.out(normalized(h, shift, scale)).float()


class DiTBlock(nn.Module):
    """Self-attention and a perceptron, each with a shift and a scale of its input and a gate on its output."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Tokens h: n k d, condition: n d; of h's shape."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        q, k, v = self.qkv(normalized(h, shift1, scale1)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype), v)
        h = torch.addcmul(h, gate1, self.proj(attended.transpose(1, 2).flatten(2)))
        return torch.addcmul(h, gate2, self.mlp(normalized(h, shift2, scale2)))


class RMSNorm(nn.RMSNorm):
    """In the weight's precision, whatever comes in: autocast leaves queries in half precision, which PyTorch's mixes
    with a warning."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """x over its root mean square along the last axis, times the weight."""
        return super().forward(x.to(self.weight.dtype))


def normalized(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalization without weights of its own, then (1 + scale) h + shift."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


def positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column of a grid's places: grid² width (MAE's and DiT's). width must be a multiple
    of 4."""
    frequency = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    side = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = side[:, None].expand(-1, grid, -1), side[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1).float()


def frequencies(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of 1000 t at geometric frequencies from 1 to 1/10000: n to n width."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angle = 1000 * t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)
