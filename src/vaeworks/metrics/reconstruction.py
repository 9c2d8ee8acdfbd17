"""PSNR and SSIM between 8-bit images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels, and the smallest side of an image."""


def psnr(image: Tensor, recon: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 images c h w, in dB over all channels; infinite where they are equal."""
    mse = (image.double() - recon.double()).square().mean().item()
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ssim(image: Tensor, recon: Tensor) -> float:
    """Structural similarity of two uint8 images c h w, mean over channels, at most 1; nan below 11 x 11 pixels.

    Gaussian window 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, range 255: Wang et al. 2004, by scikit-image.
    """
    return math.nan if min(image.shape[-2:]) < SSIM_WINDOW else float(_similarity(image, recon))


def ssim_in(image: Tensor, recon: Tensor, region: Tensor) -> tuple[float, float]:
    """As `ssim`, over the whole image, and over the pixels of `region`, bool h w: nan where it is empty."""
    if min(image.shape[-2:]) < SSIM_WINDOW:
        return math.nan, math.nan
    whole, values = _similarity(image, recon, full=True)
    return float(whole), float(values[:, region.numpy()].mean()) if region.any() else math.nan


def _similarity(image: Tensor, recon: Tensor, full: bool = False) -> Any:
    from skimage.metrics import structural_similarity

    a, b = (np.ascontiguousarray(x.cpu().numpy()) for x in (image, recon))
    return structural_similarity(
        a,
        b,
        channel_axis=0,
        data_range=255,
        full=full,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
