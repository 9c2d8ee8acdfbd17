"""Means and variances of maps in NHWC memory on CPUs, exact where there is hardly any variance.

PyTorch's own group normalization takes E[x^2] - E[x]^2 there, in float32: where a mean is three times its deviation it
is 1e-5 off, and of a flat picture, where epsilon alone is below the root, nothing is right. In NCHW memory it merges
parts, as is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PIXELS, NUMBERS = 2048, 2**17
"""Of a part whose moments are computed at once, at least one of them: it shall stay in a cache, and a call has its
price."""

TOGETHER = 2**15
"""Numbers of an image's part up to which those of all images are computed at once."""

SAMPLED = 8
"""Every which pixel of a part is looked at for a first guess of its mean: it then is within sqrt(8) standard deviations
of it, whatever the picture, so that the square that is taken away below is at most 8 variances."""


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

    Sums are in no less than float32, of what is left when a guess of the mean is taken away.
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
