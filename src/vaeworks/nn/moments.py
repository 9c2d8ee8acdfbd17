"""Means and variances of maps in NHWC memory on CPUs, exact even where the variance is tiny.

PyTorch's own group normalization computes E[x^2] - E[x]^2 there, in float32. Where the mean is three times the standard
deviation, the result is 1e-5 off; for a flat picture it is wrong altogether. In NCHW memory PyTorch merges the moments
of parts, as this module does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PIXELS, NUMBERS = 2048, 2**17
"""Least size of a part whose moments are computed at once: small enough for a cache, large enough for a call's
overhead."""

TOGETHER = 2**15
"""Numbers of an image's part up to which those of all images are computed at once."""

SAMPLED = 8
"""Stride of the pixels that give a first guess of a part's mean. The guess is within sqrt(8) standard deviations of the
mean, whatever the picture, so that the square that is subtracted below is at most 8 variances."""


def group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every group of channels of a map n c h w: n groups each, float64."""
    found = parts(x)
    return merged([channel_moments(part) for part in found], [part.shape[2] * part.shape[3] for part in found], groups)


def parts(x: Tensor) -> tuple[Tensor, ...]:
    """A map n c h w in ranges of rows."""
    _, c, _, width = x.shape
    return x.split(max(1, PIXELS // width, NUMBERS // (width * c)), dim=2)


def channel_moments(part: Tensor) -> Tensor:
    """Mean and biased variance of every channel of n c h w: 2 n c, float64.

    Sums are at least float32, of differences from a guess of the mean.
    """
    rows = part.permute(0, 2, 3, 1).flatten(1, 2)  # n h*w c, a view; sums over it are 20 times faster than var_mean
    if rows[:1].numel() > TOGETHER:
        return torch.cat([_moments(image) for image in rows.split(1)], 1)
    return _moments(rows)


def _moments(rows: Tensor) -> Tensor:
    x = rows.to(torch.promote_types(rows.dtype, torch.float32))
    guess = x[:, ::SAMPLED].mean(1)
    rest = x - guess[:, None]
    off = rest.mean(1).double()
    return torch.stack([guess.double() + off, rest.square_().mean(1).double() - off.square()])


def merged(moments: Sequence[Tensor], counts: Sequence[int], groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of groups of channels, n groups each, of parts' moments 2 n c of so many pixels: in
    float64.

    As Chan, Golub & LeVeque 1983 do.
    """
    means, variances = torch.stack(list(moments), 1).unflatten(3, (groups, -1))  # parts n g c/g
    share = torch.tensor(counts, dtype=torch.float64, device=means.device)[:, None, None, None]
    share = share / (share.sum() * means.shape[3])
    mean = (means * share).sum((0, 3))
    return mean, ((variances + (means - mean[..., None]).square()) * share).sum((0, 3))
