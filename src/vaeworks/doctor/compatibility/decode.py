"""Decode photographs with a VAE: from its own latents, and from the latents that an application gives to it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...config import AutoencoderConfig
from ...data import photos
from ...errors import ConfigError, DataError
from ...images import from_model_range, open_image, to_model_range, to_uint8
from ...models import Autoencoder
from .relation import relation_of

PHOTOS = ("astronaut", "chelsea", "coffee", "china")
"""Bundled photographs that are decoded: colourful, with four kinds of subjects."""

SIZE = 256
"""Side of the square crops of photographs, in pixels."""

SCALES = 0.6, 1.7
"""Range of the standard deviation of normalized latents; outside it a scale is certainly wrong. Good VAEs with the
right scale have 0.86..1.28 on these photographs. It is about 1 only on average over many images."""

Photos = Sequence[str | Path | Tensor] | None
"""Image files, or uint8 tensors c h w of a size that the VAE takes; None: four bundled photographs."""

Constants = tuple[float, float] | None
"""(scaling_factor, shift_factor) that an application uses; None: the VAE's own normalization."""


@dataclass(frozen=True)
class DecodedPhotos:
    """Photographs, uint8 c h w each: originals, correct decodes (`fitting`), decodes in an application (`shown`)."""

    originals: list[Tensor]
    fitting: list[Tensor]
    shown: list[Tensor]
    own: list[Tensor]
    """reconstructions by the candidate"""
    latents: list[Tensor]
    """1 c h/f w/f each, from the candidate's encoder"""
    mended: list[Tensor]
    """decodes after the best that a fold can do: the VAE's own normalization, or the best scale and shift"""
    latents_std: float
    scale: float
    shift: float
    correlation: float | None
    """of the worst channel; None without a reference"""
    mixing: str
    """how the channels that are given are those that the VAE expects, in other places; "" where they are not mixed"""


@dataclass(frozen=True)
class ReferenceDecode:
    """Latents and reconstructions of the diffusion model's own VAE, computed once for all candidates."""

    autoencoder: Autoencoder
    latents: list[Tensor]
    pictures: list[Tensor]


@torch.inference_mode()
def make(autoencoder: Autoencoder, images: Photos = None) -> ReferenceDecode:
    """Encode and decode photographs."""
    autoencoder = _in_float32(autoencoder)
    pixels = [to_model_range(photo[None]).to(autoencoder.device) for photo in read_photos(autoencoder, images)]
    latents = [autoencoder.encode(x).mode() for x in pixels]
    return ReferenceDecode(autoencoder, latents, [_decoded(autoencoder, x) for x in latents])


@torch.inference_mode()
def look(
    made: ReferenceDecode | None,
    candidate: Autoencoder,
    constants: Constants,
    images: Photos = None,
    *,
    known: bool = True,
) -> DecodedPhotos:
    """Encode and decode photographs as `fog` says; `made` is the reference's result for the same images."""
    if made is not None and _shape(made.autoencoder) != _shape(candidate):
        names = made.autoencoder.config.name, candidate.config.name
        raise ConfigError(
            f"the reference's latents are {names[0]}, this VAE's are {names[1]}; choose VAEs with latents of one shape"
        )
    candidate = _in_float32(candidate)
    originals = read_photos(candidate, images)
    own = make(candidate, images)
    maker, latents = (
        (candidate, own.latents) if made is None else (made.autoencoder, [x.to(own.latents[0]) for x in made.latents])
    )
    seen = [_normalized(maker, x, constants) for x in latents]
    std = torch.cat(seen).std().item()
    if made is None and known:
        seen = [candidate.normalize(x) for x in latents]
    elif made is None and std and not SCALES[0] < std < SCALES[1]:
        seen = [z / std for z in seen]
    given = [_denormalized(candidate, z, constants) for z in seen]
    expected = torch.cat(own.latents)
    relation = relation_of(expected, torch.cat(given))
    alike = all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(own.latents, given, strict=True))
    shown = own.pictures if alike else [_decoded(candidate, x) for x in given]
    folded = [candidate.denormalize(z) if known else relation.undone(x) for z, x in zip(seen, given, strict=True)]
    return DecodedPhotos(
        originals=originals,
        fitting=own.pictures if made is None else made.pictures,
        shown=shown,
        mended=shown if alike else [_decoded(candidate, x) for x in folded],
        own=own.pictures,
        latents=own.latents,
        latents_std=std,
        scale=relation.scale,
        shift=relation.shift,
        correlation=None if made is None else relation.worst,
        mixing="" if made is None else relation.mixing,
    )


def _shape(autoencoder: Autoencoder) -> tuple[int, int, int]:
    return autoencoder.latent_channels, autoencoder.downsample_factor, autoencoder.config.in_channels


def _in_float32(autoencoder: Autoencoder) -> Autoencoder:
    """A float32 copy, so that the verdict is on the VAE and not on a precision."""
    return autoencoder if autoencoder.dtype == torch.float32 else copy.deepcopy(autoencoder).float()


def read_photos(autoencoder: Autoencoder, images: Photos = None) -> list[Tensor]:
    """Center crops of image files as uint8 c h w, resized to SIZE or the next smaller size that the VAE takes; tensors
    are returned unchanged.

    Errors: DataError for an unreadable image, and for an empty list.
    """
    if images is None:
        images = [path for name in PHOTOS for path in photos() if path.stem == name]
    if not images:
        raise DataError("images is empty; give at least one, or None for the bundled photographs")
    multiple = autoencoder.downsample_factor * autoencoder.config.latents_patch
    side = max(SIZE // multiple, 1) * multiple
    found = []
    for path in images:
        if isinstance(path, Tensor):
            found.append(path)
            continue
        try:
            picture = open_image(path, autoencoder.config.in_channels)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        found.append(to_uint8(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)))
    return found


def takes_constants(autoencoder: Autoencoder) -> bool:
    """Whether applications normalize its latents with the checkpoint's constants: a TAESD needs none, and Flux.2's are
    in the file."""
    return isinstance(autoencoder.config, AutoencoderConfig) and autoencoder.config.normalization != "batchnorm"


def _normalized(autoencoder: Autoencoder, latents: Tensor, constants: Constants) -> Tensor:
    """Latents as the diffusion model sees them, with an application's constants."""
    if constants is None or not takes_constants(autoencoder):
        return autoencoder.normalize(latents)
    return (latents - constants[1]) * constants[0]


def _denormalized(autoencoder: Autoencoder, z: Tensor, constants: Constants) -> Tensor:
    """The decoder's input in an application, for latents that the diffusion model made."""
    if constants is None or not takes_constants(autoencoder):
        return autoencoder.denormalize(z)
    return z / constants[0] + constants[1]


def _decoded(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    pixels = autoencoder.decode(latents)
    # NaN becomes black, and `judge` sees a constant
    return from_model_range(pixels.nan_to_num(-1.0, 1.0, -1.0))[0].cpu()
