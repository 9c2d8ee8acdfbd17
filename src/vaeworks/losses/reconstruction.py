"""Pixel distances: from a reconstruction and its images, both n c h w in [-1,1], to a scalar, a mean.

All are computed in fp32 and have finite gradients at equal images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .ms_ssim import ms_ssim_loss
from .precision import full_precision
from .pyramids import haar_l1, laplacian_l1

ROUNDING = (2 / 255) ** 2 / 12
"""Variance of rounding [-1,1] to 256 levels: no closer fit can be seen in 8-bit images."""


@full_precision
def l1(recon: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error."""
    return (recon - images).abs().mean()


@full_precision
def mse(recon: Tensor, images: Tensor) -> Tensor:
    """Mean squared error."""
    return (recon - images).square().mean()


@full_precision
def huber(recon: Tensor, images: Tensor, delta: float = 0.1) -> Tensor:
    """Huber's loss over delta: e² / (2 delta) for errors up to delta, |e| - delta / 2 beyond, so that a weight means
    what it does for L1.

    Source: Huber 1964.
    """
    return F.smooth_l1_loss(recon, images, beta=delta)


@full_precision
def charbonnier(recon: Tensor, images: Tensor, epsilon: float = 1e-3) -> Tensor:
    """√(e² + epsilon²) - epsilon: L1 without its kink, and 0 at equal images. Source: Charbonnier et al. 1994; epsilon:
    Lai et al. 2017."""
    return ((recon - images).square() + epsilon**2).sqrt().mean() - epsilon


@full_precision
def focal_frequency(recon: Tensor, images: Tensor, alpha: float = 1.0) -> Tensor:
    """Mean of w |d|², d the orthonormal 2D Fourier transform of a channel's error, w = |d|^alpha over its largest
    value, a constant.

    alpha 0 is the mean squared error (Parseval); larger ones look at the frequencies that are worst.
    Source: Jiang et al. 2021 (arXiv 2012.12821).
    """
    power = torch.view_as_real(torch.fft.fft2(recon - images, norm="ortho")).square().sum(-1)
    weight = power.detach().sqrt().pow(alpha)
    largest = weight.amax((-2, -1), keepdim=True)
    return (power * weight / largest.clamp(min=torch.finfo(weight.dtype).tiny)).mean()


@full_precision
def gaussian_nll(recon: Tensor, images: Tensor, log_variance: Tensor) -> Tensor:
    """Mean negative log-likelihood per pixel and channel in nats, with a log-variance that is learned: a scalar, or n c
    h w.

    Plus the mean KL times elements of the latents / elements of the images it is the negative ELBO per pixel: no beta
    is left to choose.
    Source: Rybkin et al. 2020, "sigma-VAE" (arXiv 2006.13202).
    """
    error = (recon - images).square()
    return 0.5 * (error * (-log_variance).exp() + log_variance + math.log(2 * math.pi)).mean()


@full_precision
def optimal_gaussian_nll(
    recon: Tensor, images: Tensor, per: Literal["image", "batch"] = "image", floor: float = ROUNDING
) -> Tensor:
    """`gaussian_nll` at the log-variance that makes it smallest, ln MSE, of every image or of the batch; no variance is
    below `floor`.

    Of the batch it is the paper's; then parts of a batch do not add up to the whole, as micro-batches and processes
    must.
    """
    error = (recon - images).square()
    variance = (error.flatten(1).mean(1) if per == "image" else error.mean()).clamp(min=floor)
    return 0.5 * (variance.log() + 1 + math.log(2 * math.pi)).mean()


DISTANCES: dict[str, Callable[..., Tensor]] = {
    "l1": l1, "mse": mse, "huber": huber, "charbonnier": charbonnier, "ms_ssim": ms_ssim_loss,
    "haar": haar_l1, "laplacian": laplacian_l1, "focal_frequency": focal_frequency,
}  # fmt: skip
"""Distances by name: those that are 0 at equal images and need no other argument."""
