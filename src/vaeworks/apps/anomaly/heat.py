"""Draw heat maps over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...images import labelled
from ...pages.heatmap import heat

Array = NDArray[Any]

STRENGTH = 0.75
"""Opacity of the hottest colour."""


def overlay(image: Array, values: Array, begin: float, full: float) -> Tensor:
    """An image uint8 c h w, in gray, under its heat map h w: no colour below `begin`, yellow from `full` on.

    Returns uint8 3 h w.
    """
    gray = torch.from_numpy(image.astype(np.float32)).mean(0).expand(3, -1, -1)
    share = torch.from_numpy(np.clip((values - begin) / (full - begin), 0, 1).astype(np.float32))
    colours = heat(share, 0.0, 1.0).float()
    alpha = STRENGTH * share.sqrt()
    return (gray * (1 - alpha) + colours * alpha).round().to(torch.uint8)


def outlined(image: Array, mask: Array | None) -> Tensor:
    """An image c h w with the outline of its mask in red: uint8 3 h w."""
    from scipy.ndimage import binary_dilation

    picture = torch.from_numpy(image).expand(3, -1, -1).clone()
    if mask is not None and mask.any():
        edge = torch.from_numpy(binary_dilation(mask, iterations=2) & ~mask)
        picture[:, edge] = torch.tensor([220, 30, 30], dtype=torch.uint8)[:, None]
    return picture


LEGEND = "heat: no colour up to what 1 in 1,000 pixels of normal images reaches, yellow from 3 times that"


def sheet(
    images: Sequence[Array],
    heats: Sequence[Array],
    masks: Sequence[Array | None],
    normal_heat: float,
    names: Sequence[str] = (),
    title: str = "",
    columns: int = 4,
) -> Image.Image:
    """A sheet of images below their names, with outlines of their masks, each beside its heat map.

    normal_heat: the heat that one pixel in a thousand of a normal image reaches. Colour begins there, and is full at
    three times this heat.
    """
    full = normal_heat + 2 * max(abs(normal_heat), 1e-6)
    tiles, captions, numbers = [], [], [str(number) for number in range(len(images))]
    for image, values, mask, name in zip(images, heats, masks, names or numbers, strict=True):
        tiles += [outlined(image, mask), overlay(image, values, normal_heat, full)]
        captions += [name, "heat"]
    legend = "; red outline: mask" if any(mask is not None and mask.any() for mask in masks) else ""
    parts = [slice(first, first + 2 * columns) for first in range(0, len(tiles), 2 * columns)]
    words = f"{title} ({LEGEND}{legend})" if title else f"{LEGEND}{legend}"
    return labelled([tiles[part] for part in parts], captions=[captions[part] for part in parts], title=words)
