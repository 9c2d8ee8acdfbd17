"""Sharpness of edges: the distance over which a step rises from 10 % to 90 %."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]

CONTRASTS = (24, 80, 200)
"""Gray levels between the sides, around 128."""

SLANT = math.radians(5)
"""Angle of the edges, so that pixel centres lie at many distances from them, as in ISO 12233."""

BIN = 0.25
"""Width in pixels, along the edge's normal, of the bins that average gray levels."""

REACH = 24.0
"""Pixels on either side that are measured; the last third of them is the plateau."""


def edge_picture(contrast: int, side: int, upright: bool, channels: int = 3) -> Image.Image:
    """A slanted step in the middle of a square image without noise; each pixel is the mean over its area."""
    distance = np.clip(
        _distance(side, upright) + 0.5, 0, 1
    )  # the share of a pixel beyond an edge that is nearly parallel to its sides
    levels = np.round(128 - contrast / 2 + contrast * distance).astype(np.uint8)
    return Image.fromarray(levels if channels == 1 else np.repeat(levels[..., None], 3, axis=2))


def rise(image: Array, upright: bool) -> float:
    """Pixels between 10 % and 90 % of the step of an `edge_picture`, in a square image h w c; nan where no step is
    left."""
    levels = np.asarray(image, dtype=np.float64)
    levels = levels.mean(-1) if levels.ndim == 3 else levels
    distance = _distance(len(levels), upright)
    reach = min(REACH, len(levels) / 2 - 8)
    count = int(2 * reach / BIN)
    where = np.floor((distance + reach) / BIN).astype(int)
    inside = (where >= 0) & (where < count)
    total = np.bincount(where[inside], levels[inside], count)
    number = np.bincount(where[inside], minlength=count)
    places = (np.arange(count) + 0.5) * BIN - reach
    profile = total[number > 0] / number[number > 0]
    places = places[number > 0]
    low, high = profile[places < -reach * 2 / 3].mean(), profile[places > reach * 2 / 3].mean()
    if not high - low > 1:  # nan as well
        return math.nan
    share = (profile - low) / (high - low)
    middle = int(np.flatnonzero(share >= 0.5)[0])
    return _crossing(places, share, middle, 0.9, 1) - _crossing(places, share, middle, 0.1, -1)


def _crossing(places: Array, share: Array, start: int, level: float, step: int) -> float:
    """Position, interpolated between two bins, where the share first passes a level on the way from `start`."""
    i = start
    while 0 <= i + step < len(share):
        if (share[i] - level) * (share[i + step] - level) <= 0 and share[i] != share[i + step]:
            return float(places[i] + (level - share[i]) / (share[i + step] - share[i]) * (places[i + step] - places[i]))
        i += step
    return math.nan


def _distance(side: int, upright: bool) -> Array:
    """Signed distance of every pixel's centre from the edge, h w."""
    across, along = np.meshgrid(np.arange(side) + 0.5 - side / 2, np.arange(side) + 0.5 - side / 2)
    found = across * math.cos(SLANT) + along * math.sin(SLANT)
    return found if upright else found.T
