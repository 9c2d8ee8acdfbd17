"""Images to latents and back: single images of any size, and whole sets of squares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..data import ImageFile, ImageSet
from ..data.square_images import read_squares
from ..errors import DataError
from ..images import check_finite, crop_to, from_model_range
from ..latents.posteriors import encode_batches, picture_posterior
from ..latents.sizes import check_multiple
from ..models import Autoencoder
from ..runtime import Codec

Track = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps an iterable to show progress."""

PIXELS_AT_ONCE = 2**18
"""Pixels of a batch of squares: enough to keep processors busy, and little memory for any network."""


@dataclass(frozen=True, eq=False)
class Code:
    """The posterior of one image."""

    mean: Tensor
    """float32 c h/f w/f, unnormalized"""
    std: Tensor
    """likewise; zeros where latents are points"""
    height: int
    """of the image before padding, in pixels"""
    width: int

    def sample(
        self, temperature: float = 1.0, *, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents mean + temperature * std * noise; noise: standard normal c h w, by default drawn from `generator`."""
        noise = torch.randn(self.mean.shape, generator=generator) if noise is None else noise
        return self.mean + temperature * self.std * noise


def encode_picture(codec: Codec, image: Tensor) -> Code:
    """The code of an image uint8 c h w of any size. Errors: ConfigError for other channels than the model's."""
    posterior = picture_posterior(codec, image)
    mean = posterior.mean[0].float().cpu()
    std = torch.zeros_like(mean) if posterior.is_point else posterior.std[0].float().cpu()
    return Code(mean, std, image.shape[-2], image.shape[-1])


def decode_picture(codec: Codec, latents: Tensor, height: int, width: int) -> Tensor:
    """The image uint8 c height width of unnormalized latents c h w."""
    return crop_to(from_model_range(codec.decode(latents[None]).float())[0].cpu(), height, width)


@dataclass(frozen=True, eq=False)
class Codes:
    """A set of images as squares of one size, with the posterior of each."""

    pixels: Tensor
    """uint8 n c size size"""
    mean: Tensor
    """float32 n c h w, unnormalized"""
    std: Tensor
    """likewise; zeros where latents are points"""
    names: tuple[str, ...]
    """the images' paths"""
    labels: tuple[str, ...] | None
    """a class per image"""
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of images that cannot be read"""

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, rows: Sequence[int]) -> Codes:
        """The codes of some images, in this order."""
        rows = list(rows)
        return Codes(
            self.pixels[rows],
            self.mean[rows],
            self.std[rows],
            tuple(self.names[i] for i in rows),
            None if self.labels is None else tuple(self.labels[i] for i in rows),
        )


def encode_squares(
    autoencoder: Autoencoder, images: ImageSet, size: int, labels: Sequence[str] | None = None, track: Track = iter
) -> Codes:
    """Read and encode a set of images, all of them in memory.

    size: side of the squares that images become, in pixels. labels: one per image.
    Errors: ConfigError for a size that is no multiple of f; DataError where no image can be read.
    """
    check_size(autoencoder, size)
    pixels, kept, skipped = [], [], list(images.skipped)

    def skip(file: ImageFile, error: DataError) -> None:
        skipped.append((str(file.path), str(error)))

    for number, image in read_squares(track(images.files), size, autoencoder.config.in_channels, skip):
        pixels.append(image)
        kept.append(number)
    if not kept:
        raise DataError(f"no image of {images.source!r} can be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    names = tuple(str(images.files[i].path) for i in kept)
    classes = None if labels is None else tuple(labels[i] for i in kept)
    squares = torch.stack(pixels)
    return Codes(squares, *encode_pixels(autoencoder, squares, track), names, classes, tuple(skipped))


@torch.inference_mode()
def encode_pixels(autoencoder: Autoencoder, pixels: Tensor, track: Track = iter) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, float32 n c h w on the CPU, of images uint8 n c size size."""
    means, stds = [], []
    batches = track(pixels.split(_batch(pixels.shape[-1])))
    for mean, std in encode_batches(autoencoder.encode, batches, autoencoder.device, autoencoder.dtype):
        means.append(check_finite(mean, "encoded latents"))
        stds.append(torch.zeros_like(mean) if std is None else std)
    return torch.cat(means), torch.cat(stds)


@torch.inference_mode()
def decode_pixels(autoencoder: Autoencoder, latents: Tensor, track: Track = iter) -> Tensor:
    """Images uint8 n c h w on the CPU of unnormalized latents n c h/f w/f."""
    parts = latents.split(_batch(latents.shape[-1] * autoencoder.downsample_factor))
    return torch.cat(
        [
            from_model_range(autoencoder.decode(part.to(autoencoder.device, autoencoder.dtype))).cpu()
            for part in track(parts)
        ]
    )


def pixel_digests(pixels: Tensor) -> list[str]:
    """SHA-256 of every image n c h w, in hex. `first_half` divides images by them, whatever their order."""
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]


def first_half(digests: ArrayLike) -> NDArray[np.bool_]:
    """Which of n images are in the first half by their hashes: bool n. Equal images are in the same half.

    Neither half is empty, unless all images are equal: then the first is.
    """
    known = np.asarray(digests)
    middle = np.sort(known)[len(known) // 2]
    below = known < middle
    return below if below.any() or (known == middle).all() else known == middle


def check_size(autoencoder: Autoencoder, size: int) -> None:
    """Errors: ConfigError for a side, in pixels, that is no multiple of f."""
    check_multiple(size, autoencoder.downsample_factor)


def _batch(size: int) -> int:
    return max(1, PIXELS_AT_ONCE // size**2)
