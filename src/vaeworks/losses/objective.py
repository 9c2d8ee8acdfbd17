"""The objective: a weighted sum of named terms, each a mean, so that weights mean the same at every size.

There are pixel terms, whose gradient reaches the network only through the reconstruction, and latent terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..config import LossConfig, RegularizerConfig
from .reconstruction import DISTANCES, gaussian_nll, optimal_gaussian_nll
from .regularize import envelope, variance_expansion, variance_floor
from .spectrum import spectral_divergence

Distance = Callable[[Tensor, Tensor], Tensor]
"""From a reconstruction and its images, n c h w in [-1,1], to a scalar, a mean over images."""

Terms = dict[str, Tensor]
"""Scalars by name, before weighting."""


class Distribution(Protocol):
    """The prediction of an encoder: latents alone, or a mean, a variance and a divergence from the prior."""

    @property
    def is_point(self) -> bool:
        """Whether there is no variance, and so no KL term."""

    @property
    def mean(self) -> Tensor:
        """Latents without noise, n c h w."""

    @property
    def var(self) -> Tensor:
        """Variance, n c h w."""

    def kl(self) -> Tensor:
        """Per element, in nats."""


def pixel_terms(
    recon: Tensor,
    images: Tensor,
    config: LossConfig,
    perceptual: Distance | None = None,
    log_variance: Tensor | None = None,
) -> Terms:
    """Pixel terms of a reconstruction and its images, n 3 h w in [-1,1]: reconstruction, perceptual if there is one.

    log_variance: the learned log-variance of reconstruction "gaussian".
    """
    match config.reconstruction:
        case "gaussian":
            reconstruction = gaussian_nll(recon, images, recon.new_zeros(()) if log_variance is None else log_variance)
        case "optimal-gaussian":
            reconstruction = optimal_gaussian_nll(recon, images)
        case kind:
            reconstruction = DISTANCES[kind](recon, images)
    return {"reconstruction": reconstruction} | (
        {} if perceptual is None else {"perceptual": perceptual(recon, images)}
    )


def latent_terms(
    posterior: Distribution, latents: Tensor, images: Tensor, config: LossConfig, also: RegularizerConfig
) -> Terms:
    """Latent terms: kl, and the regularizers whose weight is not 0.

    latents: samples of `posterior`, n c h w, of images n 3 f*h f*w.
    """
    terms = {"kl": latents.new_zeros(()) if posterior.is_point else posterior.kl().float().mean()}
    if also.spectrum > 0:
        terms["spectrum"] = spectral_divergence(latents, images)
    if also.variance_expansion > 0:
        terms["variance_expansion"] = variance_expansion(posterior.var)
    if also.envelope > 0:
        terms["envelope"] = envelope(latents)
    if also.variance_floor > 0:
        terms["variance_floor"] = variance_floor(
            posterior.mean
        )  # a dead channel's samples have the variance of its noise
    return terms


def weights(loss: LossConfig, also: RegularizerConfig | None = None) -> dict[str, float]:
    """The weight of every term by its name."""
    found = {"reconstruction": 1.0, "perceptual": loss.perceptual_weight, "kl": loss.beta}
    for name in ("spectrum", "variance_expansion", "envelope", "variance_floor", "scale_equivariance"):
        found[name] = getattr(also, name) if also is not None else 0.0
    return found


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of terms times their weights: a scalar."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
