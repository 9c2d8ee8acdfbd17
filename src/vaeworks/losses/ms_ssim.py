"""Multi-scale structural similarity. Source: Wang, Simoncelli & Bovik 2003."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .precision import full_precision

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, finest first, from the paper's experiments with observers."""

WINDOW, SIGMA = 11, 1.5
"""The Gaussian window: its side and standard deviation, in pixels."""

C1, C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
"""Stabilizers, for pixels that span 2."""

LEAST = 1e-4
"""Least similarity: a negative number has no fractional power, and at 0 the power's slope is infinite."""


def scales(height: int, width: int) -> int:
    """Number of scales for an image: up to 5, each half as large, and the window must fit into the smallest (5 from
    176 px, 3 at 64).

    Errors: ConfigError for an image smaller than the window.
    """
    side, count = min(height, width), 0
    while count < len(WEIGHTS) and side >> count >= WINDOW:
        count += 1
    if not count:
        raise ConfigError(
            f"MS-SSIM needs images of at least {WINDOW}x{WINDOW} pixels, not {height}x{width}; use larger crops"
        )
    return count


@full_precision
def ms_ssim(recon: Tensor, images: Tensor) -> Tensor:
    """Similarity of every image n c h w in [-1,1], mean over channels: n, at most 1.

    Small images have fewer scales (`scales`), whose weights are made to sum to 1: comparable between images of one size
    only.
    """
    count = scales(*images.shape[-2:])
    total = sum(WEIGHTS[:count])
    similarity = torch.ones(len(images), dtype=images.dtype, device=images.device)
    for scale in range(count):
        if scale:
            recon, images = F.avg_pool2d(recon, 2), F.avg_pool2d(images, 2)
        luminance, structure = _similarities(recon, images)
        term = luminance * structure if scale + 1 == count else structure
        similarity = similarity * term.flatten(1).mean(1).clamp(min=LEAST) ** (WEIGHTS[scale] / total)
    return similarity


def ms_ssim_loss(recon: Tensor, images: Tensor) -> Tensor:
    """1 - MS-SSIM, mean over images: a scalar."""
    return 1 - ms_ssim(recon, images).mean()


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance's and contrast-and-structure's similarity at every place where the window fits."""
    mean_x, mean_y, square_x, square_y, product = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


def _windowed(maps: Tensor) -> Tensor:
    """Gaussian means of ... h w: ... h-10 w-10."""
    place = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    axis = torch.exp(-(place**2) / (2 * SIGMA**2))
    axis = axis / axis.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    flat = F.conv2d(F.conv2d(flat, axis.view(1, 1, -1, 1)), axis.view(1, 1, 1, -1))
    return flat.view(*maps.shape[:-2], *flat.shape[-2:])
