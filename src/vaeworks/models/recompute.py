"""Gradient checkpointing."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """module(x); with `recompute`, its activations are computed again in the backward pass instead of being kept.

    Source: Chen et al. 2016, arXiv 1604.06174.
    """
    return checkpoint(module, x, use_reentrant=False) if recompute else module(x)
