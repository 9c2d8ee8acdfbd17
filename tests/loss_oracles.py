"""Losses in the form in which papers write them: what the trainer's parts are compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaeworks.config import LossConfig
from vaeworks.losses import Distance
from vaeworks.losses.equivariance import Transform
from vaeworks.losses.objective import Distribution, Terms, pixel_terms, weighted, weights
from vaeworks.losses.reconstruction import l1
from vaeworks.losses.spectrum import lowpass

Decode = Callable[[Tensor], Tensor]
"""Latents n c h w to images n 3 f*h f*w in [-1,1]."""


def objective(
    recon: Tensor, images: Tensor, posterior: Distribution, config: LossConfig, perceptual: Distance | None = None
) -> tuple[Tensor, Terms]:
    """The loss, and its terms before weighting: reconstruction + perceptual_weight * perceptual + beta * mean KL.

    Sources: Higgins et al. 2017, beta-VAE; Rombach et al. 2021 (arXiv 2112.10752) with the perceptual term.
    """
    terms = pixel_terms(recon, images, config, perceptual)
    terms["kl"] = recon.new_zeros((), dtype=torch.float32) if posterior.is_point else posterior.kl().float().mean()
    return weighted(terms, weights(config)), terms


def gradient_at(loss: Tensor, tensor: Tensor) -> Tensor:
    """The gradient of a scalar loss at one tensor of its graph, detached; the graph is kept."""
    return torch.autograd.grad(loss, tensor, retain_graph=True)[0].detach()


def pulled_back(recon: Tensor, tensor: Tensor, pixel_grad: Tensor) -> Tensor:
    """The gradient at one tensor of the graph of `recon`, from the gradient at `recon` itself; the graph is kept."""
    return torch.autograd.grad(recon, tensor, pixel_grad.to(recon.dtype), retain_graph=True)[0].detach()


def transformed(decode: Decode, latents: Tensor, images: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
    """The decoded transformed latents, and the transformed images that they should be: both n 3 h' w'."""
    return decode(transform(latents)), transform(images, images.shape[-1] // latents.shape[-1])


def equivariance(
    decode: Decode, latents: Tensor, images: Tensor, transform: Transform, distance: Distance = l1
) -> Tensor:
    """EQ-VAE's reconstruction loss: the distance of `transformed`'s two (arXiv 2502.09509)."""
    return distance(*transformed(decode, latents, images, transform))


def scale_equivariance(
    decode: Decode, latents: Tensor, images: Tensor, factor: int = 2, distance: Distance = l1
) -> Tensor:
    """Distance of decoded small latents and small images, 2 or 4 times smaller (arXiv 2502.14831)."""
    return equivariance(decode, latents, images, Transform(1 / factor), distance)


def decoding_spectrum_matching(
    decode: Decode, latents: Tensor, images: Tensor, cut: int, distance: Distance = l1
) -> Tensor:
    """Distance of decoded smooth latents and smooth images, both by `lowpass` (arXiv 2603.14645)."""
    return distance(decode(lowpass(latents, cut)), lowpass(images, cut))
