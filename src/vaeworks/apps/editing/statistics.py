"""Transfer the statistics of one image's latents to another's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Statistics = Literal["channel", "full"]
"""channel: mean and standard deviation of every channel (AdaIN, Huang & Belongie 2017, arXiv 1703.06868); full: mean
and covariance of all channels (whitening and colouring, Li et al. 2017, arXiv 1705.08086), which also transfers their
correlations."""

LEAST = 1e-8
"""Variances below this share of the largest count as zero and are not scaled up."""


def transferred(z: Tensor, reference: Tensor, statistics: Statistics = "channel") -> Tensor:
    """Latents c h w with the mean and spread of reference latents c h' w'; the spatial layout stays."""
    source, other = (x.double().cpu().flatten(1) for x in (z, reference))
    middle, aim = source.mean(1, keepdim=True), other.mean(1, keepdim=True)
    source, other = source - middle, other - aim
    if statistics == "channel":
        variance = source.square().mean(1, keepdim=True)
        dead = variance <= LEAST * variance.max()
        moved = (
            source * torch.where(dead, 1.0, other.square().mean(1, keepdim=True) / variance.clamp_min(1e-300)).sqrt()
        )
    else:
        moved = _power(_covariance(other), 0.5) @ _power(_covariance(source), -0.5) @ source
    return (moved + aim).view(z.shape).to(z)


def _covariance(x: Tensor) -> Tensor:
    return x @ x.T / x.shape[1]


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """The power of a symmetric matrix, within the span of its nonzero eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    alive = values > LEAST * values.max().clamp_min(1e-300)
    return (vectors[:, alive] * values[alive] ** exponent) @ vectors[:, alive].T
