"""Equivariance: a transform of the latents shall transform the decoded image in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision


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

    "latents", with probability p: scale 8/32 ... 31/32 and 1 to 3 quarter turns, before decoding; the images are
    transformed likewise. "images", with probability `prior` of the rest: a scale only, before encoding, so that the
    model still knows small pictures as pictures. Else "nowhere".
    Source: Kouzelis et al. 2025 (arXiv 2502.09509).
    """
    which, size, turn = uniforms
    scale = (8 + int(size * 24)) / 32
    if which < p:
        return "latents", Transform(scale, 1 + int(turn * 3))
    return ("images", Transform(scale)) if which < p + (1 - p) * prior else ("nowhere", Transform())
