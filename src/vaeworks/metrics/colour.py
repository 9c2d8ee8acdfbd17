"""Whether a model shifts colours: the signed mean error."""

from __future__ import annotations

import numpy as np
from torch import Tensor

AXES = ("red", "green", "blue", "L", "a", "b")
"""Of a colour image's bias, in order; a gray image has "gray" and "L"."""


def axes(channels: int) -> tuple[str, ...]:
    """Names of the numbers that `colour_bias` gives."""
    return AXES if channels == 3 else ("gray", "L")


def colour_bias(image: Tensor, recon: Tensor) -> tuple[float, ...]:
    """Mean of reconstruction - original of two uint8 images c h w: of red, green and blue in gray levels of 255, then
    of L, a and b.

    Lab is CIE 1976 with sRGB's primaries and D65, of which L goes to 100 and a difference of 1 can hardly be seen in a
    large area.
    """
    return tuple((b - a) for a, b in zip(_means(image), _means(recon), strict=True))


def _means(image: Tensor) -> tuple[float, ...]:
    from skimage.color import rgb2lab

    channels = image.double().mean((1, 2)).tolist()
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy().astype(np.float32) / 255
    lab = rgb2lab(pixels).astype(np.float64).mean((0, 1)).tolist()
    return (*channels, *(lab if image.shape[0] == 3 else lab[:1]))
