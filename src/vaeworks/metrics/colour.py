"""Colour bias: the signed mean error of a reconstruction."""

from __future__ import annotations

import numpy as np
from torch import Tensor

AXES = ("red", "green", "blue", "L", "a", "b")
"""Axes of a colour image's bias, in order; a gray image has "gray" and "L"."""


def axes(channels: int) -> tuple[str, ...]:
    """Names of the numbers that `colour_bias` returns."""
    return AXES if channels == 3 else ("gray", "L")


def colour_bias(image: Tensor, recon: Tensor) -> tuple[float, ...]:
    """Mean of reconstruction - original of two uint8 images c h w, in red, green and blue (0 to 255), then L, a and b.

    Lab is CIE 1976 with sRGB's primaries and D65. L goes to 100, and a difference of 1 is hardly visible in a large
    area.
    """
    return tuple((b - a) for a, b in zip(_means(image), _means(recon), strict=True))


def _means(image: Tensor) -> tuple[float, ...]:
    from skimage.color import rgb2lab

    channels = image.double().mean((1, 2)).tolist()
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy().astype(np.float32) / 255
    lab = rgb2lab(pixels).astype(np.float64).mean((0, 1)).tolist()
    return (*channels, *(lab if image.shape[0] == 3 else lab[:1]))
