"""Regularizers of latents besides the KL term: variance, size, and agreement with a frozen network's features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import process_average
from .perceptual import unit
from .precision import full_precision


@full_precision
def variance_expansion(variance: Tensor, delta: float = 1e-4) -> Tensor:
    """Mean of 1 / (variance + delta) of the posterior n c h w: small where it is wide. The paper's weight is 0.1,
    without a KL term.

    Source: "VE-Loss" (arXiv 2603.21085), which adds `envelope` so that the latents do not grow instead.
    """
    return (variance + delta).reciprocal().mean()


@full_precision
def envelope(latents: Tensor, limit: float = 1.0) -> Tensor:
    """Mean of e^(|z| - limit): next to nothing within the limit, steep beyond. The paper's weight is 1e-6.

    From an exponent of 20 on it grows linearly, so that one outlier is a figure and not infinity.
    """
    excess = latents.abs() - limit
    return (excess.clamp(max=20.0).exp() * (1 + (excess - 20.0).clamp(min=0.0))).mean()


@full_precision
def variance_floor(latents: Tensor, floor: float = 1.0, epsilon: float = 1e-8) -> Tensor:
    """Mean over channels of max(0, floor - std), std over n h w: keeps channels of a plain autoencoder alive without a
    KL term.

    A figure of the batch, over all processes: parts of a batch do not add up to the whole.
    Source: the variance term of Bardes et al. 2021, "VICReg" (arXiv 2105.04906), where std is over the batch alone.
    """
    channels = latents.transpose(0, 1).flatten(1)
    mean = process_average(channels.mean(1, keepdim=True))
    std = (process_average((channels - mean).square().mean(1)) + epsilon).sqrt()
    return (floor - std).relu().mean()


@full_precision
def cosine_alignment(projected: Tensor, features: Tensor, margin: float = 0.5) -> Tensor:
    """Mean over places of max(0, 1 - margin - cos) of projected latents n d h w and frozen features n d h' w'.

    Features are resized to h w. Source: Yao & Wang 2025, "VA-VAE" (arXiv 2501.01423), where the projection is a linear
    layer.
    """
    cosine = (unit(projected) * unit(_as_large_as(projected, features))).sum(1)
    return (1 - margin - cosine).relu().mean()


@full_precision
def distance_alignment(latents: Tensor, features: Tensor, margin: float = 0.25) -> Tensor:
    """Mean over pairs of places of max(0, |cos(z_i, z_j) - cos(f_i, f_j)| - margin), of latents n c h w and frozen
    features n d h' w'.

    Channels need not agree, as only places are compared; it takes n (h w)² numbers. Features are resized to h w.
    Source: as `cosine_alignment`. The latents are compared as they are, as the paper writes it; the published code of
    VA-VAE compares projected latents, if it projects latents at all.
    """
    pairs = [
        torch.einsum("nci,ncj->nij", u, u)
        for u in (unit(x).flatten(2) for x in (latents, _as_large_as(latents, features)))
    ]
    return ((pairs[0] - pairs[1]).abs() - margin).relu().mean()


def _as_large_as(latents: Tensor, features: Tensor) -> Tensor:
    """Features without gradient, at the places of the latents."""
    features = features.detach()
    if features.shape[-2:] == latents.shape[-2:]:
        return features
    return F.interpolate(features, size=latents.shape[-2:], mode="bilinear", align_corners=False)
