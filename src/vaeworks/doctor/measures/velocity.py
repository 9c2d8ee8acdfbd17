"""Velocity ambiguity: the uncertainty of the direction that a flow model of one class predicts, from the latents'
spectrum alone.

On the path from noise to data z with variance l along a direction, the velocity at time t has the conditional variance
l / ((1-t)^2 + t^2 l), whose integral over t is pi/2 sqrt(l). VIV is the mean of that over directions and classes.
Source: "diffusing right space" (arXiv 2606.03578); the estimator by DCT, and the parts rho and phi, are derived from
its formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...intervals import NORMAL_95, Interval
from ...metrics.dct import dct2

ENOUGH = 10
"""Images of a class times channels, over positions, from which on the flip-flop estimator is trusted: of simulated
fields of 4 x 16 x 16 with a VIV of 0.955 it finds 0.94 with 6 times as many as positions, 0.83 with 0.8 times and 0.60
with a quarter, where the DCT finds 0.95 to 0.96."""


@dataclass(frozen=True)
class Ambiguity:
    """Of classes of latents that are standardized by channel, every class counting alike, so that the total variance is
    1."""

    viv: Interval
    """0.. pi/2: mean over classes, with the jackknife's interval over images"""
    within: float
    """variance within classes (over n - 1), mean over classes"""
    flip_flop: float | None
    """VIV by the other estimator; None where there are too few images for it"""

    @property
    def rho(self) -> float:
        """Share of the variance within classes, 0..1: 1 where neither class nor position predicts a latent."""
        return min(1.0, self.within)

    @property
    def phi(self) -> float:
        """VIV over its maximum for this rho, pi/2 sqrt(rho): flatness of the spectrum, 1 for white noise."""
        return self.viv.value / (math.pi / 2 * math.sqrt(self.within)) if self.within > 0 else math.nan


def ambiguity(classes: Sequence[Tensor]) -> Ambiguity:
    """VIV of the classes' latents n_i c h w, each with 3 images or more, after standardizing their channels."""
    vivs, variances, errors, others = [], [], [], []
    mean = torch.stack([z.double().mean((0, 2, 3)) for z in classes]).mean(0)[:, None, None]
    std = (
        torch.stack([(z.double() - mean).square().mean((0, 2, 3)) for z in classes])
        .mean(0)
        .sqrt()
        .clamp_min(1e-12)[:, None, None]
    )
    for raw in classes:
        z = (raw - mean) / std
        values, without, variance = viv_dct(z)
        vivs.append(values)
        errors.append((len(z) - 1) / len(z) * float(((without - without.mean()) ** 2).sum()))
        variances.append(variance)
        n, c, h, w = z.shape
        others.append(viv_flip_flop(z) if n * c >= ENOUGH * h * w else None)
    k, value = len(classes), float(np.mean(vivs))
    half = NORMAL_95 * math.sqrt(sum(errors)) / k
    trusted = [v for v in others if v is not None]
    flip_flop = float(np.mean(trusted)) if len(trusted) == k else None
    return Ambiguity(Interval(value, value - half, value + half), float(np.mean(variances)), flip_flop)


def viv_dct(z: Tensor) -> tuple[float, np.ndarray, float]:
    """VIV of one class's latents n c h w, the same without each of its images n, and their mean variance.

    l of a direction: variance (over n - 1) of a coefficient after PCA of the channels and the DCT over positions, which
    diagonalize stationary fields; of others, the sum of the square roots is an upper bound (Schur-Horn).
    """
    n = len(z)
    deviation = z.double() - z.double().mean(0)
    covariance = torch.einsum("nchw,ndhw->cd", deviation, deviation)
    _, vectors = torch.linalg.eigh(covariance)
    squares = dct2(torch.einsum("cd,nchw->ndhw", vectors, deviation)).square().flatten(1)
    total = squares.sum(0)
    # without image i, the sum of squares about the remaining images' own mean
    left = (total - squares * n / (n - 1)).clamp_min(0)
    without = math.pi / 2 * (left / (n - 2)).sqrt().mean(1)
    variances = total / (n - 1)
    return math.pi / 2 * float(variances.sqrt().mean()), without.numpy(), float(variances.mean())


def viv_flip_flop(z: Tensor, rounds: int = 5) -> float:
    """VIV of one class's latents n c h w, if their covariance is a Kronecker product of channels and positions.

    Both factors in turn, each the maximum likelihood given the other (Dutilleul 1999), scaled to the total variance.
    Biased unless n*c is ten times h*w and more: look at ENOUGH before.
    """
    n, c = z.shape[:2]
    x = (z.double() - z.double().mean(0)).flatten(2)
    s = x.shape[2]
    channels = torch.eye(c, dtype=torch.float64)
    places = channels  # replaced in the first round
    for _ in range(rounds):
        places = torch.einsum("ncs,cd,ndt->st", x, _inverse(channels), x) / (n * c)
        channels = torch.einsum("ncs,st,ndt->cd", x, _inverse(places), x) / (n * s)
    values = torch.outer(*(torch.linalg.eigvalsh(factor).clamp_min(0) for factor in (channels, places)))
    variance = x.square().sum() / ((n - 1) * c * s)
    return math.pi / 2 * float((values * variance / values.mean().clamp_min(1e-300)).sqrt().mean())


def _inverse(matrix: Tensor) -> Tensor:
    jitter = 1e-9 * matrix.diagonal().mean().clamp_min(1e-300)
    return torch.linalg.inv(matrix + jitter * torch.eye(len(matrix), dtype=matrix.dtype))
