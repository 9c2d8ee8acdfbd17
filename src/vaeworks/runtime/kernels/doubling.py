"""Nearest-neighbour doubling in NHWC memory."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .choice import suits


def doubled(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling: n c h w to n c 2h 2w, bit for bit."""
    if suits(x):
        from .triton_doubling import doubled as by_triton

        return by_triton(x)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
