"""What happens to the latents happens to the picture: regularizers that ask a decoder for it.

`decode` is given: latents n c h w to images n 3 f*h f*w in [-1,1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .precision import full_precision
from .reconstruction import l1

Decode = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Transform:
    """Resize to `scale` (bilinear), then turn counterclockwise by `quarter_turns` of 90 degrees: of images or of
    latents n c h w."""

    scale: float = 1.0
    quarter_turns: int = 0

    def __call__(self, x: Tensor, multiple: int = 1) -> Tensor:
        """Sides become round(side / multiple * scale) * multiple, at least `multiple`.

        With f for images and 1 for their latents, the results still fit each other.
        """
        height, width = (max(1, round(side // multiple * self.scale)) * multiple for side in x.shape[-2:])
        if (height, width) != tuple(x.shape[-2:]):
            x = _resized(x, height, width).to(x.dtype)
        return x.rot90(self.quarter_turns, (-2, -1)) if self.quarter_turns % 4 else x


@full_precision
def _resized(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


Where = Literal["nowhere", "latents", "images"]


def draw(uniforms: tuple[float, float, float], p: float = 0.5, prior: float = 0.25) -> tuple[Where, Transform]:
    """EQ-VAE's choice for a step, from three random numbers in [0,1): which transform, and where it is applied.

    "latents", with probability p: scale 8/32 ... 31/32 and 1 to 3 quarter turns; the step's reconstruction is
    `transformed`'s. "images", with probability `prior` of the rest: a scale only, applied to the images before they are
    encoded, so that the model still knows small pictures as pictures. Else "nowhere". Source: Kouzelis et al. 2025
    (arXiv 2502.09509).
    """
    which, size, turn = uniforms
    scale = (8 + int(size * 24)) / 32
    if which < p:
        return "latents", Transform(scale, 1 + int(turn * 3))
    return ("images", Transform(scale)) if which < p + (1 - p) * prior else ("nowhere", Transform())


def transformed(decode: Decode, latents: Tensor, images: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
    """The decoded transformed latents, and the transformed images that they should be: both n 3 h' w', for any loss.

    Errors: ConfigError where images are not f times their latents.
    """
    factor = images.shape[-1] // latents.shape[-1]
    if [factor * side for side in latents.shape[-2:]] != list(images.shape[-2:]):
        raise ConfigError(
            f"images {_size(images)} are no multiple of latents {_size(latents)}; pass images with the latents they "
            "have"
        )
    return decode(transform(latents)), transform(images, factor)


def equivariance(
    decode: Decode, latents: Tensor, images: Tensor, transform: Transform, distance: Distance = l1
) -> Tensor:
    """Distance of `transformed`'s two: a scalar. In EQ-VAE it takes the place of the reconstruction loss, discriminator
    and all."""
    return distance(*transformed(decode, latents, images, transform))


def scale_equivariance(
    decode: Decode, latents: Tensor, images: Tensor, factor: int = 2, distance: Distance = l1
) -> Tensor:
    """Distance of decoded small latents and small images, 2 or 4 times smaller: a scalar, to be added with a weight of
    about 0.25.

    Source: Skorokhodov et al. 2025 (arXiv 2502.14831).
    """
    return equivariance(decode, latents, images, Transform(1 / factor), distance)


def _size(x: Tensor) -> str:
    return f"{x.shape[-2]}x{x.shape[-1]}"
