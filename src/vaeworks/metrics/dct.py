"""The discrete cosine transform of latents, with high-frequency share, block profile and spectral flatness."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def dct_matrix(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The orthonormal DCT-II of n values as a matrix n n: frequency by position."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * math.sqrt(2 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(dtype)


def dct2(x: Tensor) -> Tensor:
    """Orthonormal DCT-II over the last two axes, of the same shape; white noise of variance v has coefficients of
    variance v."""
    h, w = x.shape[-2:]
    return dct_matrix(h, x.dtype) @ x @ dct_matrix(w, x.dtype).T


def is_high(h: int, w: int, rho: float) -> NDArray[np.bool_]:
    """Which frequencies (u, v) count as high: u + v > rho (h + w - 2); h w."""
    u, v = np.indices((h, w))
    return np.asarray(u + v > rho * (h + w - 2) + 1e-9)  # rounding must not decide


def high_share(energy: Array, rho: float) -> float:
    """SEC_rho: share of the energy h w (mean squared DCT coefficients, the mean included) at high frequencies, 0..1.

    nan without energy. Source: spectral energy concentration of "diffusing right space" (arXiv 2606.03578).
    """
    total = energy.sum()
    return float(energy[is_high(energy.shape[0], energy.shape[1], rho)].sum() / total) if total > 0 else math.nan


def white_ceiling(h: int, w: int, rho: float) -> float:
    """`high_share` of white noise: the share of frequencies that are high."""
    return float(is_high(h, w, rho).mean())


def zigzag(n: int = 8) -> list[tuple[int, int]]:
    """JPEG's order of the frequencies (u, v) of an n x n block: by u + v, in turning directions."""
    return sorted(((u, v) for u in range(n) for v in range(n)), key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]))


def block_amplitudes(x: Tensor, n: int = 8) -> Tensor:
    """Mean absolute DCT coefficients of the n x n blocks of b c h w, in zigzag order: b n*n, means over channels and
    blocks.

    Incomplete blocks at the right and the lower border are ignored. Sides have at least n.
    """
    h, w = (side // n * n for side in x.shape[-2:])
    blocks = x[..., :h, :w].unflatten(-2, (-1, n)).unflatten(-1, (-1, n)).transpose(-3, -2)
    order = torch.tensor([u * n + v for u, v in zigzag(n)])
    return dct2(blocks).abs().mean((1, 2, 3)).flatten(1)[:, order]


def flatness(energy: Array, samples: int) -> float:
    """Spectral flatness of mean DCT powers: geometric over arithmetic mean, 0..1, 1 of white noise.

    samples: number of independent coefficients that each power averages. The logarithm of such a mean is biased low,
    for normal coefficients by ln(k/2) - digamma(k/2), about 1/k. The result is corrected for this bias, exactly for
    white noise (Gray & Markel 1974; chi-squared). 0 where a frequency has no power, nan where none has.
    """
    if not energy.sum() > 0:
        return math.nan
    if not (energy > 0).all():
        return 0.0
    bias = float(torch.digamma(torch.tensor(samples / 2, dtype=torch.float64))) - math.log(samples / 2)
    return float(np.exp(np.log(energy).mean() - bias) / energy.mean())
