"""Spaces that a generator learns: the latents of a VAE, and the spaces of the arena's check rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct, idct
from torch import Tensor

from ..config import LatentConfig
from ..errors import ConfigError
from ..formats import load
from ..models import Autoencoder, Posterior
from ..models.digest import model_digest

ROUNDS = 2
"""Rounds of permuting, changing signs and transforming; after two, every number of a scrambled latent depends on every
number of the original."""

PATCH = 4
"""Side of the squares of pixels that become the channels of the space "patches", in pixels."""


class Space(Protocol):
    """Images to latents and back, and latents to the generator's view of them."""

    digest: str
    """hash, equal for equal spaces"""
    device: torch.device
    """device of encoding and decoding"""
    channels: int
    """of images"""

    def shape(self, size: int) -> tuple[int, int, int]:
        """c h w of the latents of a square image. Errors: ConfigError for a size that the space does not take."""
        ...

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images n c h w in [-1,1]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images n c h w, about in [-1,1]."""
        ...

    def seen(self, latents: Tensor) -> Tensor:
        """The generator's training data, of the latents' shape."""
        ...

    def unseen(self, z: Tensor) -> Tensor:
        """The inverse of `seen`."""
        ...


@dataclass(frozen=True)
class SpaceSpec:
    """A space as plain values, so that another process can open it."""

    kind: Literal["vae", "pixels", "patches", "scrambled"]
    model: str = ""
    """for kinds vae and scrambled: a path that `load` takes"""
    channels: int = 3
    """channels of images, for kinds pixels and patches"""
    seed: int = 0
    """for kinds patches and scrambled"""


def open_space(spec: SpaceSpec, device: torch.device | str = "cpu") -> Space:
    """The space of a specification.

    Errors: those of `load`.
    """
    if spec.kind == "pixels":
        return Patches(1, spec.channels, None)
    if spec.kind == "patches":
        return Patches(PATCH, spec.channels, spec.seed)
    space = Latents(load(spec.model).to(device).eval())
    return Scrambled(space, spec.seed) if spec.kind == "scrambled" else space


class Latents:
    """The latents of a VAE."""

    def __init__(self, autoencoder: Autoencoder):
        self.autoencoder = autoencoder
        self.config: LatentConfig = autoencoder.config
        self.channels = self.config.in_channels
        self.digest = model_digest(autoencoder)
        self.device = autoencoder.device

    def shape(self, size: int) -> tuple[int, int, int]:
        """c h w of the latents of a square image. Errors: ConfigError for a size that is no multiple of f."""
        f = self.config.downsample_factor
        if size % f:
            raise ConfigError(f"size (={size}) must be divisible by the downsample_factor (={f}) of {self.config.name}")
        return self.config.latent_channels, size // f, size // f

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images n c h w in [-1,1]."""
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images n c h w, about in [-1,1]."""
        return self.autoencoder.decode(latents)

    def seen(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents

    def unseen(self, z: Tensor) -> Tensor:
        """The latents themselves."""
        return z


class Patches:
    """Squares of pixels, multiplied by one orthogonal matrix: lossless, and without order. A square of one pixel stays
    as it is."""

    def __init__(self, patch: int, channels: int, seed: int | None):
        self.patch, self.channels, self.device = patch, channels, torch.device("cpu")
        self.digest = hashlib.sha256(f"patches {patch} {channels} {seed}".encode()).hexdigest()
        width = channels * patch**2
        self.matrix = torch.eye(width) if seed is None else _orthogonal(width, seed)

    def shape(self, size: int) -> tuple[int, int, int]:
        """c h w of the latents of a square image. Errors: ConfigError for a size that is no multiple of the patch."""
        if size % self.patch:
            raise ConfigError(f"size (={size}) must be divisible by {self.patch}, the side of a patch")
        return self.channels * self.patch**2, size // self.patch, size // self.patch

    def encode(self, images: Tensor) -> Posterior:
        """A point: the rotated pixels."""
        return Posterior.point(_turned(F.pixel_unshuffle(images, self.patch), self.matrix))

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels."""
        return F.pixel_shuffle(_turned(latents, self.matrix.T), self.patch)

    def seen(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents

    def unseen(self, z: Tensor) -> Tensor:
        """The latents themselves."""
        return z


def _orthogonal(width: int, seed: int) -> Tensor:
    """A random orthogonal matrix, uniformly distributed (Mezzadri 2007): width width."""
    q, r = np.linalg.qr(np.random.Generator(np.random.Philox(seed)).standard_normal((width, width)))
    return torch.from_numpy(q * np.sign(np.diag(r))).float()


def _turned(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("kc,nchw->nkhw", matrix.to(x), x)


class Scrambled:
    """A VAE's latents; the generator sees one fixed orthogonal mixture of all numbers of an image.

    Reconstructions and information stay the same; positions and channels lose their meaning.
    """

    def __init__(self, space: Latents, seed: int):
        self.space, self.seed = space, seed
        self.channels, self.device = space.channels, space.device
        self.digest = hashlib.sha256(f"scrambled {space.digest} {seed}".encode()).hexdigest()
        self._plans: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def shape(self, size: int) -> tuple[int, int, int]:
        """The VAE's."""
        return self.space.shape(size)

    def encode(self, images: Tensor) -> Posterior:
        """The VAE's."""
        return self.space.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """The VAE's."""
        return self.space.decode(latents)

    def seen(self, latents: Tensor) -> Tensor:
        """A mixture of all numbers of each image, by permutations, signs and cosine transforms: orthogonal, and fast
        for any size."""
        x = latents.flatten(1).cpu().double().numpy()
        for places, signs in self._plan(x.shape[1]):
            x = dct(x[:, places] * signs, axis=1, norm="ortho")
        return torch.from_numpy(x).to(latents).view_as(latents)

    def unseen(self, z: Tensor) -> Tensor:
        """The inverse of `seen`."""
        x = z.flatten(1).cpu().double().numpy()
        for places, signs in reversed(self._plan(x.shape[1])):
            back = np.empty_like(x)
            back[:, places] = idct(x, axis=1, norm="ortho") * signs
            x = back
        return torch.from_numpy(x).to(z).view_as(z)

    def _plan(self, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Permutation and signs of each round."""
        if width not in self._plans:
            random = np.random.Generator(np.random.Philox([self.seed, width]))
            self._plans[width] = [(random.permutation(width), random.choice([-1.0, 1.0], width)) for _ in range(ROUNDS)]
        return self._plans[width]
