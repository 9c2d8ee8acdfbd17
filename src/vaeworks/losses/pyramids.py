"""L1 in the bands of a multi-scale transform: errors of every size count, not only those of single pixels.

Both transforms are linear, so they are applied to the error. Its border is repeated where its sides are no multiples of
2^levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import pad_to_multiple
from .precision import full_precision


@full_precision
def haar_l1(recon: Tensor, images: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute Haar coefficient of the error of images n c h w: mean over a level's details, then over the levels
    and what is left.

    The transform is orthonormal: white errors are as large in every band as in pixels, smooth ones larger.
    """
    rest = pad_to_multiple(recon - images, 2**levels)
    terms = []
    for _ in range(levels):
        rest, details = haar(rest)
        terms.append(details.abs().mean())
    return torch.stack([*terms, rest.abs().mean()]).mean()


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal 2D Haar transform of n c h w, h and w even: smooth n c h/2 w/2, details n c 3 h/2
    w/2."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return (a + b + c + d) / 2, torch.stack([a - b + c - d, a + b - c - d, a - b - c + d], 2) / 2


@full_precision
def laplacian_l1(recon: Tensor, images: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute value of the error's Laplacian pyramid, of images n c h w: mean over a level, then over the levels
    and what is left.

    In sums, level j weighs 4^j, as in Bojanowski et al. 2018 (arXiv 1707.05776); the pyramid is Burt & Adelson's
    (1983).
    """
    fine = pad_to_multiple(recon - images, 2**levels)
    terms = []
    for _ in range(levels):
        coarse = shrink(fine)
        terms.append((fine - expand(coarse)).abs().mean())
        fine = coarse
    return torch.stack([*terms, fine.abs().mean()]).mean()


def shrink(x: Tensor) -> Tensor:
    """Every second pixel of n c h w, h and w even, blurred with (1 4 6 4 1)/16: n c h/2 w/2."""
    axis = _binomial(x) / 16
    flat = F.pad(x.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(F.conv2d(flat, axis.view(1, 1, -1, 1), stride=(2, 1)), axis.view(1, 1, 1, -1), stride=(1, 2))
    return flat.view(*x.shape[:2], *flat.shape[-2:])


def expand(x: Tensor) -> Tensor:
    """The pixels of n c h w at every second place, the others filled in with the same kernel: n c 2h 2w. Constants stay
    constant."""
    axis = _binomial(x) / 8
    flat = F.pad(x.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    flat = F.conv_transpose2d(flat, axis.view(1, 1, -1, 1), stride=(2, 1))
    flat = F.conv_transpose2d(flat, axis.view(1, 1, 1, -1), stride=(1, 2))
    height, width = 2 * x.shape[-2], 2 * x.shape[-1]
    return flat[..., 4 : 4 + height, 4 : 4 + width].view(*x.shape[:2], height, width)


def _binomial(x: Tensor) -> Tensor:
    return x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0])
