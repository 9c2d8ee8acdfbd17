"""Group normalization, and the SiLU that follows it almost everywhere."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .moments import group_moments

SMALLEST_FLOAT16 = 2.0**-24
LEAST_IN_PLACE = 2**16
"""Numbers of an image's map from which on the backward pass stays in NHWC memory (measured: docs/log.md)."""
CHUNK, ROW = 2**17, 512
"""Numbers that are worked on at a time, and in a row."""


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018, arXiv 1803.08494) in n c h w, optionally followed by SiLU."""

    def __init__(self, channels: int, groups: int = 32, eps: float = 1e-6):
        super().__init__(groups, channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized x: n c h w to n c h w."""
        if _inexact(x):
            if not (
                torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad or self.bias.requires_grad)
            ):
                return _normalized(x, self.weight, self.bias, self.num_groups, self.eps_for(x.dtype))[0]
            y = _group_norm(x.contiguous(), self.num_groups, self.weight, self.bias, self.eps_for(x.dtype))
            return y.contiguous(memory_format=torch.channels_last)
        return _group_norm(x, self.num_groups, self.weight, self.bias, self.eps_for(x.dtype))

    def eps_for(self, dtype: torch.dtype) -> float:
        """eps, but no less than float16's smallest number: GPUs cast it to the input's type, and with 0 a group without
        variance becomes NaN."""
        return max(self.eps, SMALLEST_FLOAT16) if dtype == torch.float16 else self.eps

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the normalized x: n c h w to n c h w."""
        if self.training and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _GroupNormSiLU.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return F.silu(self(x))


class _GroupNormSiLU(torch.autograd.Function):
    """silu(group_norm(x)) that saves only x for the backward pass, and normalizes again there.

    Training on CPUs only. PyTorch's own backward pass of group_norm is up to 20 times slower in NHWC memory than in
    NCHW there, and copies of large maps to NCHW cost up to eight times what the pass itself needs in NHWC.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        if _inexact(x):
            y, mean, rstd = _normalized(x, weight, bias, groups, eps)
        else:
            y, mean, rstd = torch.native_group_norm(x, weight, bias, *_sizes(x), groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(y, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        last = x.is_contiguous(memory_format=torch.channels_last)
        if last and x[0].numel() >= LEAST_IN_PLACE:
            return *_backward_in_nhwc(grad, x, weight, bias, mean, rstd), None, None
        x, grad = x.contiguous(), grad.contiguous()
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *_sizes(x), ctx.groups, ctx.eps)
        grad = torch.ops.aten.silu_backward(grad, y)
        dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(
            grad, x, mean, rstd, weight, *_sizes(x), ctx.groups, list(ctx.needs_input_grad[:3])
        )
        if dx is not None and last:
            dx = dx.contiguous(memory_format=torch.channels_last)
        return dx, dweight, dbias, None, None


def _group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """PyTorch's, which refuses by its functional name a group of one number: it has no variance, and becomes its
    bias."""
    return torch.group_norm(x, groups, weight, bias, eps, torch.backends.cudnn.enabled)


def _inexact(x: Tensor) -> bool:
    """Whether PyTorch's own statistics of a map are inexact where its mean is large: in NHWC memory on CPUs
    (moments.py)."""
    if x.device.type != "cpu" or x.ndim != 4 or torch.compiler.is_compiling():  # what is compiled merges parts, too
        return False
    return x.stride(1) == 1 and x.stride(3) >= x.shape[1]


def _normalized(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normalized map n c h w, and mean and 1/std of its groups, n groups each."""
    wide = torch.promote_types(x.dtype, torch.float32)
    mean, var = group_moments(x, groups)
    rstd = (var + eps).rsqrt()
    width = x.shape[1] // groups
    scale = rstd.repeat_interleave(width, 1) * weight
    shift = bias - mean.repeat_interleave(width, 1) * scale
    y = torch.addcmul(shift.to(wide)[:, :, None, None], x.to(wide), scale.to(wide)[:, :, None, None]).to(x.dtype)
    return y, mean.to(wide), rstd.to(wide)


def _backward_in_nhwc(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at x, weight and bias from the one at silu(group_norm(x)), n c h w in NHWC memory, computed in no less
    than fp32.

    With z = a x + b the normalized value of a channel and dz the gradient there, it is dx = a dz + p x + q, where p and
    q belong to a group and come from the channels' sums of dz and dz x. Some rows at a time, which stay in a cache;
    several pixels make a row, so that rows are long where channels are few.
    """
    n, c, pixels = _sizes(x)
    groups, wide = mean.shape[1], torch.promote_types(x.dtype, torch.float32)
    mean, rstd, weight_, bias_ = (t.to(wide) for t in (mean, rstd, weight, bias))
    channel_mean, channel_rstd = (t.repeat_interleave(c // groups, 1) for t in (mean, rstd))  # n c
    scale = channel_rstd * weight_
    width = math.gcd(pixels, max(1, ROW // c))

    def rows(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 1).reshape(n, pixels // width, width * c)

    def repeated(t: Tensor) -> Tensor:
        return t.repeat(1, width)

    dx = torch.empty_like(x, memory_format=torch.channels_last)
    xs, grads, outs = rows(x), rows(grad), rows(dx)
    a, b, sums = repeated(scale), repeated(bias_ - channel_mean * scale), x.new_zeros(2, n, width * c, dtype=wide)
    step = max(1, CHUNK // (width * c))
    chunks = [(i, slice(j, j + step)) for i in range(n) for j in range(0, pixels // width, step)]
    direct = x.dtype == wide
    for i, chunk in chunks:
        some = xs[i, chunk].to(wide)
        z = torch.addcmul(b[i], some, a[i])
        dz = outs[i, chunk] if direct else torch.empty_like(z)
        torch.ops.aten.silu_backward.grad_input(grads[i, chunk].to(wide), z, grad_input=dz)
        if not direct:
            outs[i, chunk] = dz
        sums[0, i] += dz.sum(0)
        sums[1, i] += torch.mul(dz, some, out=z).sum(0)

    of_dz, of_dzx = sums.view(2, n, width, c).sum(2)
    dweight, dbias = ((of_dzx - channel_mean * of_dz) * channel_rstd).sum(0), of_dz.sum(0)
    per_group, per_group_x = ((weight_ * s).view(n, groups, -1).sum(2) for s in (of_dz, of_dzx))
    p = (per_group * mean - per_group_x) * rstd**3 / (pixels * (c // groups))
    q = -p * mean - per_group * rstd / (pixels * (c // groups))
    p, q = (repeated(t.repeat_interleave(c // groups, 1)) for t in (p, q))
    for i, chunk in chunks:
        dz, out = outs[i, chunk], torch.addcmul(q[i], xs[i, chunk].to(wide), p[i])
        if direct:
            torch.addcmul(out, dz, a[i], out=dz)
        else:
            outs[i, chunk] = out.addcmul_(dz.to(wide), a[i])
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
