"""Group normalization and SiLU in NHWC memory in two passes over the map: one for the statistics, one for the result.

The arithmetic is in at least float32, whatever the map's dtype, so that a half-precision result is rounded once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choice import suits

WIDEST = 2048
"""Most channels; wider maps do not fit into a kernel's block."""


def group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every group of channels of a map n c h w: n groups each, in at least float32.

    With as many groups as channels, they can be merged with those of other strips (`lazy_maps.py`).
    Partial sums cover few pixels each, about their own mean, and are merged as in Chan, Golub & LeVeque 1983.
    """
    if suits(x) and x.shape[1] <= WIDEST:
        from .triton_normalization import moments

        return moments(x, groups)
    return _group_moments(x, groups)


def normalized_silu(
    x: Tensor, norm: nn.GroupNorm, mean: Tensor, var: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """SiLU of x, n c h w, normalized with given statistics of its groups, n groups each (also those of a larger map)
    and scaled as in `norm`."""
    assert norm.weight is not None and norm.bias is not None  # every known VAE has them
    if suits(x, norm.weight, norm.bias, mean, var) and x.shape[1] <= WIDEST:
        from .triton_normalization import normalized

        return normalized(x, norm.weight, norm.bias, mean, var, norm.eps, dtype or x.dtype)
    return _normalized_silu(x, norm, mean, var, dtype)


def _group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    var, mean = torch.var_mean(x.to(wide).unflatten(1, (groups, -1)), dim=(2, 3, 4), correction=0)
    return mean, var


def _normalized_silu(
    x: Tensor, norm: nn.GroupNorm, mean: Tensor, var: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    width = x.shape[1] // mean.shape[1]
    scale = (var.to(wide) + norm.eps).rsqrt().repeat_interleave(width, 1) * norm.weight.to(wide)
    shift = norm.bias.to(wide) - mean.to(wide).repeat_interleave(width, 1) * scale
    y = torch.addcmul(shift[:, :, None, None], x.to(wide), scale[:, :, None, None])
    return F.silu(y, inplace=not y.requires_grad).to(dtype or x.dtype)
