"""The least-squares affine map between two latent spaces, fitted to the latents of the same images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import LatentConfig
from ..errors import ConfigError, DataError
from ..images import check_divisible, check_finite
from ..latents.posteriors import posterior_of
from ..models import Autoencoder

Affine = tuple[Tensor, Tensor]
"""(weight, bias) of a map of vectors, float64; patches are flattened by channel, row, column"""

HELD_OUT = 4
"""Every fourth image is held out: maps are judged by images that they were not fitted to."""

RIDGE = 1e-8
"""Added to the variance of every direction, as a share of the mean variance. It bounds the map where latents do not
vary, and changes an exact map by about as much as float32 rounds."""

PER_WEIGHT = 2
"""Fewest positions for each input of a map; a fit to fewer repeats its images, and explains no others."""

GAIN = 0.005
"""Smallest gain of explained variance for which a map between whole patches is preferred to one that is the same at all
positions of a patch. The latter has fewer numbers, and keeps the noise of neighbouring latents independent."""


@dataclass(frozen=True)
class LatentMap:
    """An affine map from the latents of one VAE to those of another, both normalized as a denoiser sees them.

    It maps patches of side p (`patch`) to patches of side q (`target_patch`), each flattened as `F.pixel_unshuffle`
    does: channel, row, column. With patches of 1, it maps positions.

    >>> their_latents = fitted.to_old(our_latents)
    """

    weight: Tensor
    """q*q*d p*p*c, float64, on the CPU"""
    bias: Tensor
    """q*q*d, float64"""
    explained: float
    """share of the variance of the target's latents that the map explains on held-out images: R^2, at most 1; below 0,
    the target's mean would be better"""
    source: str
    """f and c of the VAE, for example f8c16"""
    target: str
    num_images: int
    """images that the map was fitted to"""
    num_held_out: int
    patch: int = 1
    target_patch: int = 1

    def __call__(self, latents: Tensor) -> Tensor:
        """The target's latents n d q*h q*w, from the source's n c p*h p*w."""
        tokens = F.pixel_unshuffle(latents, self.patch)
        mapped = F.conv2d(tokens, self.weight[:, :, None, None].to(tokens), self.bias.to(tokens))
        return F.pixel_shuffle(mapped, self.target_patch)

    @property
    def noise_gain(self) -> float:
        """Standard deviation of the target's channels where the source's are white noise of 1. A denoiser of the target
        expects 1: it sees less noise than its timestep says if this is smaller."""
        return self.weight.square().sum(1).mean().sqrt().item()

    @property
    def sentence(self) -> str:
        """What the map explains, for people."""
        return (
            f"a linear map of the latents of {self.source} explains {self.explained:.1%} of the variance of those of "
            f"{self.target}, on {self.num_held_out} images that it was not fitted to"
        )


class Moments:
    """Count, sum and second moments of vectors with d numbers, float64; batches are added one by one."""

    def __init__(self, size: int):
        self.count = 0
        self.total = torch.zeros(size, dtype=torch.float64)
        self.square = torch.zeros(size, size, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Vectors n d."""
        vectors = vectors.double()
        self.count += len(vectors)
        self.total += vectors.sum(0)
        self.square += vectors.T @ vectors

    @property
    def mean(self) -> Tensor:
        """d."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """d d, about the mean."""
        return self.square / self.count - self.mean.outer(self.mean)

    def pooled(self, groups: Tensor) -> Moments:
        """Moments of the parts of every vector: row k of `groups` (k e) has the places of part k's numbers."""
        parts = Moments(groups.shape[1])
        parts.count = self.count * len(groups)
        parts.total = self.total[groups].sum(0)
        parts.square = torch.stack([self.square[row][:, row] for row in groups]).sum(0)
        return parts


@dataclass(frozen=True)
class Paired:
    """Moments of the latents of the same images in two spaces: first the old space's numbers, then the new one's."""

    fitted: Moments
    held_out: Moments
    old_size: int
    """numbers of the old space: p*p*c"""

    def explained_by(self, weight: Tensor, bias: Tensor, *, to_old: bool) -> float:
        """R^2 of a map on the held-out images, over all channels; NaN if the target's latents do not vary."""
        x, y = self.sides(to_old)
        mean, cov = self.held_out.mean, self.held_out.covariance
        offset = mean[y] - weight @ mean[x] - bias
        cross = weight @ cov[x][:, y]
        error = cov[y][:, y].trace() - 2 * cross.trace() + (weight @ cov[x][:, x] @ weight.T).trace()
        variance = cov[y][:, y].trace()
        return (1 - (error + offset.square().sum()) / variance).item() if variance > 0 else math.nan

    def least_squares(self, *, to_old: bool) -> tuple[Tensor, Tensor]:
        """(weight, bias) of the map that explains most of the fitted images."""
        x, y = self.sides(to_old)
        mean, cov = self.fitted.mean, self.fitted.covariance
        size = len(mean[x])
        ridge = RIDGE * cov[x][:, x].trace().clamp_min(1e-30) / size
        # lstsq, because the covariance of duplicated channels has no inverse even with a ridge that small
        normal = cov[x][:, x] + ridge * torch.eye(size, dtype=torch.float64)
        weight = torch.linalg.lstsq(normal, cov[x][:, y], driver="gelsd").solution.T
        return weight, mean[y] - weight @ mean[x]

    def sides(self, to_old: bool) -> tuple[slice, slice]:
        """(places of the source's numbers, places of the target's)."""
        old, new = slice(0, self.old_size), slice(self.old_size, None)
        return (new, old) if to_old else (old, new)


@dataclass(frozen=True)
class LatentMaps:
    """The maps between two latent spaces, and the moments that they were fitted to."""

    to_old: LatentMap
    to_new: LatentMap
    moments: Paired
    """of whole patches"""
    per_position: bool
    """whether the maps are the same at all positions of a patch"""
    identity: float | None
    """share of the old latents' variance that the new latents explain as they are; None for other shapes"""

    def sentences(self) -> list[str]:
        """What the maps explain, a line for each direction."""
        same = f"; as they are, the new latents explain {self.identity:.1%}" if self.identity is not None else ""
        return [self.to_old.sentence + same, self.to_new.sentence]


def latent_maps(
    old: Autoencoder, new: Autoencoder, images: Iterable[Tensor], *, patch: int = 1, new_patch: int | None = None
) -> LatentMaps:
    """Fit the affine maps between two VAEs' latents of the same images, in both directions.

    >>> maps = latent_maps(old, new, batches)
    >>> maps.to_old.sentence
    'a linear map of the latents of f8c16 explains 93.1% of the variance of those of f8c4, on 64 images ...'

    images: batches uint8 n 3 s s, as many as you like; only moments are kept. Latents are the posteriors' modes,
    normalized. patch: side of the old latents' squares that become one vector, as in a transformer's patches.
    new_patch: of the new latents' (None: the same). Two VAEs of different f need patches that cover the same area:
    old.f * patch = new.f * new_patch.

    Maps between patches of the same side are either the same for all positions or for whole patches, whichever explains
    more of the held-out images. No map looks at neighbours beyond its patch: followed by a 3x3 convolution, it would
    need a larger one, and it would turn white noise into noise that the denoiser has never seen.
    Errors: ConfigError for latents that patches cannot align; DataError for too few images; NotFiniteError for latents
    that overflow.
    """
    new_patch = patch if new_patch is None else new_patch
    if old.config.latents_patch > 1 or new.config.latents_patch > 1:
        raise ConfigError("maps between latents that are normalized in 2x2 patches, as Flux.2's, are not supported")
    if old.downsample_factor * patch != new.downsample_factor * new_patch:
        raise ConfigError(
            f"latents of {old.config.name} and {new.config.name} have different grids, and no linear map aligns them; "
            f"take a VAE of f{old.downsample_factor}"
        )
    moments, counts = _gathered(old, new, images, patch, new_patch)
    names = old.config.name, new.config.name
    positions = _by_position(old.config, new.config, patch) if patch == new_patch else None
    whole = _fitted(moments)
    chosen, per_position = whole, patch == new_patch == 1
    if positions is not None and patch > 1:
        pooled = Paired(moments.fitted.pooled(positions), moments.held_out.pooled(positions), old.latent_channels)
        shared = [_at_all_positions(*affine, patch) for affine in _fitted(pooled)]
        if not _explains(moments, whole) > _explains(moments, shared) + GAIN:
            chosen, per_position = shared, True
    (to_old, to_new) = (
        LatentMap(
            *affine,
            explained=moments.explained_by(*affine, to_old=to_old),
            source=names[to_old],
            target=names[not to_old],
            num_images=counts[0],
            num_held_out=counts[1],
            patch=new_patch if to_old else patch,
            target_patch=patch if to_old else new_patch,
        )
        for affine, to_old in zip(chosen, (True, False), strict=True)
    )
    identity = None
    if patch == new_patch and old.latent_channels == new.latent_channels:
        eye = torch.eye(moments.old_size, dtype=torch.float64)
        identity = moments.explained_by(eye, torch.zeros(moments.old_size, dtype=torch.float64), to_old=True)
    return LatentMaps(to_old, to_new, moments, per_position, identity)


def _fitted(moments: Paired) -> list[Affine]:
    return [moments.least_squares(to_old=to_old) for to_old in (True, False)]


def _explains(moments: Paired, maps: list[Affine]) -> float:
    """What the map to the old latents explains, which the denoiser will see."""
    return moments.explained_by(*maps[0], to_old=True)


def _by_position(old: LatentConfig, new: LatentConfig, patch: int) -> Tensor:
    """Row k: the places of the latents at position k of a patch, p*p (old c + new c)."""
    area = patch**2
    channels = torch.arange(old.latent_channels + new.latent_channels) * area
    return torch.arange(area)[:, None] + channels


def _at_all_positions(weight: Tensor, bias: Tensor, patch: int) -> Affine:
    """A map of positions as one of patches."""
    return torch.kron(weight, torch.eye(patch**2, dtype=weight.dtype)), bias.repeat_interleave(patch**2)


def check_enough(images: int, positions: int, numbers: int) -> None:
    """Check that so many images, of which so many positions are fitted, suffice for a map of so many numbers.

    Errors: DataError.
    """
    needed = PER_WEIGHT * numbers
    if positions < needed or images < HELD_OUT:
        raise DataError(
            f"{images} images give {positions} positions to fit a map to (every fourth image is held out), and a map "
            f"of {numbers} numbers needs at least {needed}; give more images, or larger ones"
        )


@torch.inference_mode()
def _gathered(
    old: Autoencoder, new: Autoencoder, images: Iterable[Tensor], patch: int, new_patch: int
) -> tuple[Paired, tuple[int, int]]:
    """Moments of both VAEs' latents, and the numbers of images fitted and held out."""
    sizes = old.latent_channels * patch**2, new.latent_channels * new_patch**2
    fitted, held_out, seen = Moments(sum(sizes)), Moments(sum(sizes)), 0
    for squares in images:
        if squares.dtype != torch.uint8 or squares.ndim != 4:
            raise ConfigError(f"images must be uint8 n 3 s s, not {squares.dtype} {tuple(squares.shape)}")
        check_divisible(squares.shape[-2], squares.shape[-1], old.downsample_factor * patch)
        vectors = torch.cat([_vectors(old, squares, patch), _vectors(new, squares, new_patch)], dim=-1)
        held = (torch.arange(seen, seen + len(squares)) + 1) % HELD_OUT == 0
        fitted.add(vectors[~held].flatten(0, 1))
        held_out.add(vectors[held].flatten(0, 1))
        seen += len(squares)
    check_enough(seen, fitted.count, max(sizes))
    return Paired(fitted, held_out, sizes[0]), (seen - seen // HELD_OUT, seen // HELD_OUT)


def _vectors(autoencoder: Autoencoder, squares: Tensor, patch: int) -> Tensor:
    """Normalized latents of images uint8 n 3 s s, as vectors n t p*p*c."""
    posterior = posterior_of(autoencoder.encode, squares, autoencoder.device, autoencoder.dtype)
    latents = autoencoder.normalize(posterior.mode().float())
    check_finite(latents, f"latents of the VAE of {autoencoder.config.name}")
    return F.pixel_unshuffle(latents, patch).flatten(2).transpose(1, 2).cpu()
