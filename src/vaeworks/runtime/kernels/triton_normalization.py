"""The Triton kernels of `normalization.py`. Imported only where Triton is installed.

A map is read as n pixels c. Programs of the first kernel take a stretch of pixels each, with all channels; a small
second kernel merges their results; programs of the third normalize. Offsets have 64 bits: a map of 4096 x 4096 pixels
and 128 channels has 2**31 numbers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 8192
"""Numbers per program and step: 32 for each thread of 8 warps."""
WARPS = 8
PROGRAMS = 512
"""Most stretches of pixels per call: about four for each multiprocessor of a large GPU."""


@triton.jit
def _stretches(  # type: ignore[no-untyped-def]
    x, means, squares, pixels, stretch, C: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr
):
    """Mean, and sum of squared differences from it, of every channel over a stretch of pixels: n stretches c each."""
    image, part = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, WIDE)
    first = part * stretch
    last = tl.minimum(first + stretch, pixels)
    source = x + image.to(tl.int64) * pixels * C
    mean = tl.zeros([WIDE], tl.float32)
    square = tl.zeros([WIDE], tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & (channel < C)[None, :]
        value = tl.load(source + row.to(tl.int64)[:, None] * C + channel[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
        before, more = (start - first) * 1.0, tl.minimum(last - start, ROWS) * 1.0
        own = tl.sum(value, 0) / more
        difference = tl.where(inside, value - own[None, :], 0.0)
        step, share = own - mean, more / (before + more)
        square += tl.sum(difference * difference, 0) + step * step * before * share
        mean += step * share
    place = (image.to(tl.int64) * tl.num_programs(1) + part) * C + channel
    tl.store(means + place, mean, mask=channel < C)
    tl.store(squares + place, square, mask=channel < C)


@triton.jit
def _merged(  # type: ignore[no-untyped-def]
    means,
    squares,
    mean_out,
    var_out,
    pixels,
    stretch,
    parts,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Mean and biased variance of one group of WIDTH channels of one image, merged from stretches."""
    image, group = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, WIDE)
    source = image.to(tl.int64) * parts * C + group * WIDTH
    total = pixels * 1.0 * WIDTH
    means_sum = tl.zeros([WIDE], tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & (channel < WIDTH)[None, :]
        share = (tl.minimum(pixels - part * stretch, stretch) * 1.0 / total)[:, None]
        value = tl.load(means + source + part.to(tl.int64)[:, None] * C + channel[None, :], mask=inside, other=0.0)
        means_sum += tl.sum(tl.where(inside, value * share, 0.0), 0)
    mean = tl.sum(means_sum, 0)
    squares_sum = tl.zeros([WIDE], tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & (channel < WIDTH)[None, :]
        share = (tl.minimum(pixels - part * stretch, stretch) * 1.0 / total)[:, None]
        place = source + part.to(tl.int64)[:, None] * C + channel[None, :]
        difference = tl.load(means + place, mask=inside, other=0.0) - mean
        within = tl.load(squares + place, mask=inside, other=0.0) / total
        squares_sum += tl.sum(tl.where(inside, difference * difference * share + within, 0.0), 0)
    tl.store(mean_out + image * tl.num_programs(1) + group, mean)
    tl.store(var_out + image * tl.num_programs(1) + group, tl.sum(squares_sum, 0))


@triton.jit
def _normalized(  # type: ignore[no-untyped-def]
    x,
    y,
    mean,
    var,
    weight,
    bias,
    pixels,
    groups,
    eps,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """silu((x - mean) / sqrt(var + eps) * weight + bias) of ROWS pixels."""
    image = tl.program_id(1)
    channel = tl.arange(0, WIDE)
    known = channel < C
    group = image * groups + channel // WIDTH
    scale = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32) / tl.sqrt_rn(
        tl.load(var + group, mask=known, other=1.0) + eps
    )
    shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    middle = tl.load(mean + group, mask=known, other=0.0)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < pixels)[:, None] & known[None, :]
    place = (image.to(tl.int64) * pixels + row.to(tl.int64))[:, None] * C + channel[None, :]
    value = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - middle[None, :]) * scale[None, :] + shift[
        None, :
    ]
    tl.store(y + place, (value * tl.sigmoid(value)).to(y.dtype.element_ty), mask=inside)


def moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, n groups each in float32, of a map n c h w in NHWC memory."""
    n, c, h, w = x.shape
    wide = triton.next_power_of_2(c)
    rows = max(1, BLOCK // wide)
    stretch = rows * triton.cdiv(triton.cdiv(h * w, max(1, PROGRAMS // n)), rows)
    parts = triton.cdiv(h * w, stretch)
    means, squares = (torch.empty(n, parts, c, dtype=torch.float32, device=x.device) for _ in range(2))
    mean, var = (torch.empty(n, groups, dtype=torch.float32, device=x.device) for _ in range(2))
    width = c // groups
    group = triton.next_power_of_2(width)
    with torch.cuda.device_of(x):
        _stretches[n, parts](x, means, squares, h * w, stretch, C=c, WIDE=wide, ROWS=rows, num_warps=WARPS)
        _merged[n, groups](
            means, squares, mean, var, h * w, stretch, parts, C=c, WIDTH=width, WIDE=group, PARTS=max(1, 1024 // group)
        )
    return mean, var


def normalized(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """SiLU of the normalized map n c h w in NHWC memory; mean and var: n groups each."""
    n, c, h, w = x.shape
    wide = triton.next_power_of_2(c)
    rows = max(1, BLOCK // wide)
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    mean, var = (t.to(x.device, torch.float32).contiguous() for t in (mean, var))
    groups = mean.shape[1]
    with torch.cuda.device_of(x):
        _normalized[triton.cdiv(h * w, rows), n](  # the second number is at most 65535
            x,
            y,
            mean,
            var,
            weight.contiguous(),
            bias.contiguous(),
            h * w,
            groups,
            eps,
            C=c,
            WIDTH=c // groups,
            WIDE=wide,
            ROWS=rows,
            num_warps=WARPS,
        )
    return y
