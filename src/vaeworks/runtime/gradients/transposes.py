"""Gradients as maps: the transposes of convolutions, doubling, halving and group normalization, by rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import GroupNorm
from ..lazy_maps import Map, Statistics


def transposed(conv: nn.Conv2d) -> nn.Conv2d:
    """The transpose of `conv`, which keeps height and width: a convolution with the kernel rotated by 180 degrees,
    without bias."""
    shape: dict[str, Any] = {"kernel_size": conv.kernel_size, "padding": conv.padding}
    back = nn.Conv2d(conv.out_channels, conv.in_channels, bias=False, device="meta", **shape)
    back.weight = nn.Parameter(conv.weight.detach().flip(2, 3).transpose(0, 1), requires_grad=False)
    return back


class Pooled(Map):
    """The transpose of nearest-neighbour doubling: sums over 2x2 pixels."""

    def __init__(self, source: Map):
        n, c, h, w = source.shape
        self.source, self.shape, self.itemsize = source, (n, c, h // 2, w // 2), source.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        return F.avg_pool2d(self.source.rows(2 * start, 2 * stop), 2, divisor_override=1)

    def release(self, before: int) -> None:
        self.source.release(2 * before)


class Spread(Map):
    """The transpose of `Halved`."""

    def __init__(self, grad: Map, conv: nn.Conv2d):
        n, _, h, w = grad.shape
        self.grad, self.conv, self.shape, self.itemsize = grad, conv, (n, conv.in_channels, 2 * h, 2 * w), grad.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        first = max(0, (start - 1) // 2)  # output row i reads input rows 2i, 2i+1, 2i+2
        y = F.conv_transpose2d(self.grad.rows(first, (stop + 1) // 2), self.conv.weight, stride=2)
        return y[:, :, start - 2 * first : stop - 2 * first, : self.shape[3]]

    def release(self, before: int) -> None:
        self.grad.release((before - 1) // 2)


@dataclass(frozen=True)
class Sums:
    """Sums over pixels of the gradient dz at a normalized map, for every channel: n c each, float64."""

    of_dz: Tensor
    of_dzx: Tensor
    """dz times the map x before the normalization"""


class Denormalized(Map):
    """The gradient before a group normalization, from the gradient after it.

    dx = a dz + p x + q, with a for each channel, p and q for each group (nn/norm.py).
    """

    def __init__(self, dz: Map, source: Map, norm: GroupNorm, statistics: Statistics, sums: Sums):
        self.dz, self.source, self.shape, self.itemsize = dz, source, source.shape, source.itemsize
        _, c, h, w = source.shape
        width, count = c // norm.num_groups, c // norm.num_groups * h * w
        mean, rstd, weight = statistics.mean, (statistics.var + norm.eps).rsqrt(), norm.weight.detach().double()
        of_dz, of_dzx = ((weight * s).unflatten(1, (-1, width)).sum(2) for s in (sums.of_dz, sums.of_dzx))
        p = (of_dz * mean - of_dzx) * rstd**3 / count
        q = -p * mean - of_dz * rstd / count
        a = rstd.repeat_interleave(width, 1) * weight
        wide = torch.promote_types(norm.weight.dtype, torch.float32)
        self.a, self.p, self.q = (
            t.to(wide)[:, :, None, None] for t in (a, p.repeat_interleave(width, 1), q.repeat_interleave(width, 1))
        )

    def rows(self, start: int, stop: int) -> Tensor:
        x, dz = self.source.rows(start, stop), self.dz.rows(start, stop)
        return torch.addcmul(self.q, x.to(self.a.dtype), self.p).addcmul_(dz.to(self.a.dtype), self.a).to(x.dtype)

    def release(self, before: int) -> None:
        self.source.release(before)
        self.dz.release(before)
