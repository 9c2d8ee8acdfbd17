"""The backward pass through group normalization, SiLU and a convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import GroupNorm
from ..lazy_maps import Convolved, Map, Statistics, Stored, affine, strips
from .parameters import Gradients
from .rows import around
from .transposes import Denormalized, Sums, transposed


def through(
    source: Map,
    norm: GroupNorm,
    statistics: Statistics,
    conv: nn.Conv2d,
    grad: Map,
    rows: int,
    gradients: Gradients,
    wanted: bool,
) -> Denormalized | None:
    """The gradient at `source`, if it is wanted, from `grad` at the result of normalization, SiLU and convolution.
    Frees grad.

    Adds the gradients at parameters.
    """
    n, c, height, _ = source.shape
    scale, shift = (t[:, :, None, None] for t in affine(norm, statistics))
    back = Convolved(grad, transposed(conv)) if wanted or gradients.wants(norm) else None
    dz, (of_dz, of_dzx) = Stored(source.shape), scale.new_zeros(2, n, c)
    for start, stop in strips(height, rows):
        x, above, below = around(source, start, stop)
        wide = torch.promote_types(x.dtype, torch.float32)
        z = torch.addcmul(shift.to(wide), x.to(wide), scale.to(wide))
        if gradients.wants(conv):
            gradients.add_same(conv, F.silu(z).to(x.dtype), above, below, grad.rows(start, stop))
        if back is None:
            continue
        middle = slice(above, above + stop - start)
        part = torch.ops.aten.silu_backward(back.rows(start, stop).to(wide), z[:, :, middle])
        of_dz += _per_channel(part)
        of_dzx += _per_channel(part * x[:, :, middle].to(wide))
        if wanted:
            dz.append(part.to(x.dtype))
        back.release(stop)
    if back is None:
        return None
    width = c // norm.num_groups
    mean, rstd = (t.repeat_interleave(width, 1) for t in (statistics.mean, (statistics.var + norm.eps).rsqrt()))
    gradients.add(norm, "weight", ((of_dzx - mean * of_dz) * rstd).sum(0))
    gradients.add(norm, "bias", of_dz.sum(0))
    return Denormalized(dz, source, norm, statistics, Sums(of_dz, of_dzx)) if wanted else None


def _per_channel(x: Tensor) -> Tensor:
    """Sums over pixels of n c h w: n c, float64."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1).double()
