"""A prior for latents: a stationary Gaussian, fitted to a set of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError
from ...metrics.dct import dct_matrix
from ...models import Autoencoder
from ..codes import Codes, Track, decode_pixels

BINS = 16
"""Number of frequency bins, geometrically spaced."""

FLOOR = 1e-6
"""Smallest power of a component, as a share of the largest: the power of dead channels is 0, and is divided by."""


@dataclass(frozen=True, eq=False)
class SpectralPrior:
    """A Gaussian of latents that is equal at every position: principal components of the channels, each with a power
    spectrum.

    A VAE's standard normal prior needs a strong KL term. With the usual weak one, latents have other variances,
    correlated channels and, above all, correlated neighbours. The covariance of a stationary field is nearly diagonal
    in the cosine transform (Rao & Yip 1990), so that `Whitened` turns such latents into independent standard normal
    numbers.
    """

    mean: Tensor
    """c"""
    basis: Tensor
    """c c: columns are principal components"""
    frequency: Tensor
    """k: cycles per latent in the middle of each bin"""
    power: Tensor
    """c k: variance of the components' cosine coefficients"""
    error: float
    """root mean square of reconstruction - image over the set, in gray levels: the error of the autoencoder itself"""
    images: int

    def at(self, height: int, width: int) -> Whitened:
        """The prior for latents c height width."""
        squared = _frequencies(height, width).flatten().log()
        spectrum = torch.stack([_interpolated(squared, self.frequency.log(), power.log()) for power in self.power])
        std = spectrum.exp().sqrt().view(-1, height, width)
        return Whitened(
            self.mean[:, None, None].float(), self.basis.float(), std.float(), dct_matrix(height), dct_matrix(width)
        )


@dataclass(frozen=True, eq=False)
class Whitened:
    """Conversion between latents of one size and their standard normal coordinates under a prior."""

    mean: Tensor
    basis: Tensor
    std: Tensor
    rows: Tensor
    columns: Tensor

    def latents(self, u: Tensor) -> Tensor:
        """Unnormalized latents c h w of coordinates c h w; linear."""
        return torch.einsum("ij,jhw->ihw", self.basis, self.rows.T @ (u * self.std) @ self.columns) + self.mean

    def coordinates(self, z: Tensor) -> Tensor:
        """The inverse of `latents`."""
        return self.rows @ torch.einsum("ij,ihw->jhw", self.basis, z - self.mean) @ self.columns.T / self.std

    def to(self, device: torch.device) -> Whitened:
        """On another device."""
        return Whitened(*(x.to(device) for x in (self.mean, self.basis, self.std, self.rows, self.columns)))


def fit_prior(autoencoder: Autoencoder, codes: Codes, track: Track = iter) -> SpectralPrior:
    """Fit the prior to a set of encoded squares, and measure the autoencoder's error on them.

    Errors: ConfigError for squares with fewer than 4 latents along a side, which have no spectrum.
    """
    n, _, h, w = codes.mean.shape
    if min(h, w) < 4:
        raise ConfigError(
            f"a prior needs squares of at least {4 * autoencoder.downsample_factor} px, not {codes.pixels.shape[-1]}"
        )
    mean, basis, frequency, power = _spectrum(codes.mean.double())
    recon = decode_pixels(autoencoder, codes.mean, track)
    error = (recon.float() - codes.pixels.float()).square().mean().sqrt().item()
    return SpectralPrior(mean, basis, frequency, power, error, n)


def _spectrum(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, principal components, frequencies and powers of latents n c h w."""
    c, h, w = z.shape[1:]
    mean = z.mean((0, 2, 3))
    centred = z - mean[:, None, None]
    flat = centred.transpose(0, 1).reshape(c, -1)
    basis = torch.linalg.eigh(flat @ flat.T / flat.shape[1])[1]
    rows, columns = dct_matrix(h, z.dtype), dct_matrix(w, z.dtype)
    energy = (rows @ torch.einsum("ij,nihw->njhw", basis, centred) @ columns.T).square().mean(0).flatten(1)
    frequency = _frequencies(h, w).flatten()
    edges = torch.linspace(float(frequency.min().log()), float(frequency.max().log()) + 1e-9, BINS + 1, dtype=z.dtype)
    which = torch.bucketize(frequency.log(), edges, right=True).clamp(1, BINS) - 1
    filled = [i for i in range(BINS) if (which == i).any()]
    power = torch.stack([energy[:, which == i].mean(1) for i in filled], 1)
    middle = torch.stack([frequency[which == i].log().mean().exp() for i in filled])
    return mean, basis, middle, power.clamp_min(FLOOR * float(power.max()) or FLOOR)


def _frequencies(h: int, w: int) -> Tensor:
    """Cycles per latent of every cosine coefficient: h w; the constant one has the lowest frequency of the others."""
    u, v = torch.arange(h, dtype=torch.float64) / (2 * h), torch.arange(w, dtype=torch.float64) / (2 * w)
    return (u[:, None].square() + v.square()).sqrt().clamp_min(0.5 / max(h, w, 2))


def _interpolated(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Linear between points, constant beyond them."""
    if len(at) == 1:
        return values.expand(len(x))
    i = torch.searchsorted(at, x).clamp(1, len(at) - 1)
    share = ((x - at[i - 1]) / (at[i] - at[i - 1])).clamp(0, 1)
    return values[i - 1] + share * (values[i] - values[i - 1])
