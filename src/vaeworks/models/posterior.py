"""The distribution of an image's latents, which the encoder predicts."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Posterior:
    """A Gaussian with diagonal covariance, one mean and one variance per latent element.

    >>> posterior = vae.encode(images)                 # images n 3 h w in [-1,1]
    >>> posterior.mode(), posterior.sample(), posterior.std

    Source: Kingma & Welling 2013 (arXiv 1312.6114); the clamp of the log-variance to [-30, 20] is latent diffusion's.
    """

    def __init__(self, moments: Tensor):
        """moments: n 2c h w, means first, then log-variances."""
        self.mean, logvar = moments.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.is_point = False

    @classmethod
    def of(cls, mean: Tensor, logvar: Tensor) -> Posterior:
        """The posterior of this mean and log-variance, n c h w each, as they are."""
        posterior = cls.__new__(cls)
        posterior.mean, posterior.logvar, posterior.is_point = mean, logvar, False
        return posterior

    @classmethod
    def point(cls, latents: Tensor) -> Posterior:
        """The posterior of an encoder that predicts latents n c h w without a variance. Its KL is infinite."""
        posterior = cls.__new__(cls)
        posterior.mean, posterior.logvar, posterior.is_point = latents, torch.full_like(latents, -math.inf), True
        return posterior

    def __repr__(self) -> str:
        """One line: kind, shape and type."""
        kind = "point" if self.is_point else "Gaussian"
        shape = " x ".join(map(str, self.mean.shape))
        dtype = str(self.mean.dtype).removeprefix("torch.")
        return f"Posterior({kind}, latents {shape}, {dtype} on {self.mean.device})"

    @property
    def var(self) -> Tensor:
        """Variance, n c h w."""
        return self.logvar.exp()

    @property
    def std(self) -> Tensor:
        """Standard deviation, n c h w."""
        return (0.5 * self.logvar).exp()

    def mode(self) -> Tensor:
        """The most likely latents, which are the mean: n c h w."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """Latents mean + std * noise, differentiable in mean and std (the reparameterization trick): n c h w.

        noise: standard normal, n c h w; by default drawn from `generator`, on that generator's device.
        """
        if noise is None:
            device = generator.device if generator is not None else self.mean.device
            noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal prior, per element in nats: n c h w. Its mean is the training loss.

        ½ (mean² + var - 1 - logvar), Kingma & Welling 2013, appendix B.
        """
        return 0.5 * (self.mean.square() + self.var - 1.0 - self.logvar)

    def bits_per_dimension(self) -> Tensor:
        """Mean KL divergence in bits per latent element: a scalar."""
        return self.kl().mean() / math.log(2.0)
