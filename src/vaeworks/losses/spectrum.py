"""Regularizers of the latents' spectrum, after Ning et al. 2026, "Spectrum Matching" (arXiv 2603.14645)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import crop_to, pad_to_multiple
from .precision import full_precision

BLOCK = 8
"""Side of the blocks of `lowpass`."""


@full_precision
def radial_spectrum(x: Tensor, bins: int = 16) -> tuple[Tensor, Tensor]:
    """Power of n c h w by frequency, mean over channels and directions: n b, and the frequencies b, in cycles per pixel
    up to 1/2.

    Without the mean of every channel. Of `bins` equal bins, those that hold none of the frequencies of an image so
    small are left out. White noise of variance v has power v everywhere.
    """
    power = torch.view_as_real(torch.fft.fft2(x, norm="ortho")).square().sum(-1).mean(1).flatten(1)
    radius = _radius(x)
    number = (radius * 2 * bins).ceil().long() - 1  # (0, 1/2] in equal parts; the mean and the corners are in none
    member = (number == torch.arange(bins, device=x.device)[:, None]).to(x.dtype)
    member = member[member.sum(1) > 0]
    share = member / member.sum(1, keepdim=True)
    return power @ share.T, share @ radius


@full_precision
def spectral_divergence(latents: Tensor, images: Tensor, delta: float = 1.0, bins: int = 16) -> Tensor:
    """Divergence of the latents' spectrum from the images', flattened: a scalar, for a weight of 0.01 without KL.

    KL(p || q), in nats: q is ln(1 + power) of the latents n c h w by frequency, over its sum; p that of the images n 3
    f*h f*w, blurred, resized to h w and their power multiplied by frequency^delta. Both powers have a mean of 1 before
    the logarithm, so that the scale of the latents does not matter. No gradient reaches the images.

    It has the idea of the paper's "encoding spectrum matching", and is another loss than its authors' code: the
    gradients of the two have a cosine of about 0.5.
    """
    small = F.interpolate(_blurred(images.detach()), size=latents.shape[-2:], mode="bicubic", align_corners=False)
    target, frequencies = radial_spectrum(small, bins)
    power, _ = radial_spectrum(latents, bins)
    p, q = _shares(target * frequencies**delta), _shares(power)
    return (p * (p / q).log()).sum(1).mean()


def lowpass(x: Tensor, cut: int) -> Tensor:
    """n c h w without the higher frequencies of its 8x8 blocks: DCT coefficients with u + v >= 15 - cut become 0; cut 0
    keeps all.

    Sides that are no multiples of 8 have their border repeated for it.
    """
    return _lowpass(x, cut).to(x.dtype)


@full_precision
def _lowpass(x: Tensor, cut: int) -> Tensor:
    height, width = x.shape[-2:]
    padded = pad_to_multiple(x, BLOCK)
    blocks = padded.unflatten(-2, (-1, BLOCK)).unflatten(-1, (-1, BLOCK))
    dct = _dct(x)
    frequency = torch.arange(BLOCK, device=x.device)
    kept = (frequency[:, None] + frequency < 2 * BLOCK - 1 - cut).to(x.dtype)
    coefficients = torch.einsum("ui,ncaibj,vj->ncaubv", dct, blocks, dct) * kept[:, None, :]
    return crop_to(torch.einsum("ui,ncaubv,vj->ncaibj", dct, coefficients, dct).reshape(padded.shape), height, width)


def _dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of 8 values as a matrix, in the dtype of x."""
    n = torch.arange(BLOCK, dtype=x.dtype, device=x.device)
    matrix = torch.cos(math.pi / BLOCK * (n + 0.5) * n[:, None]) * math.sqrt(2 / BLOCK)
    return torch.cat([matrix[:1] * math.sqrt(0.5), matrix[1:]])


def _radius(x: Tensor) -> Tensor:
    """Distance from 0 of every frequency of `fft2`, in cycles per pixel: h*w."""
    y, z = (torch.fft.fftfreq(side, dtype=x.dtype, device=x.device) for side in x.shape[-2:])
    return torch.hypot(y[:, None], z).flatten()


def _blurred(images: Tensor) -> Tensor:
    """A Gaussian of 7x7 pixels, sigma 1.2, over n c h w with its border repeated."""
    place = torch.arange(-3, 4, dtype=images.dtype, device=images.device)
    axis = torch.exp(-(place**2) / (2 * 1.2**2))
    axis = axis / axis.sum()
    flat = F.pad(images.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(flat, axis.view(1, 1, -1, 1)), axis.view(1, 1, 1, -1)).view_as(images)


def _shares(power: Tensor, epsilon: float = 1e-6) -> Tensor:
    """n b, positive, to ln(1 + power) over its sum; finite, gradient and all, where there is no power."""
    level = (power / (power.mean(1, keepdim=True) + epsilon)).log1p() + epsilon
    return level / level.sum(1, keepdim=True)
