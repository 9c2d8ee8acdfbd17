"""Heat maps as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...images import grid
from ...pages.heatmap import heat

Array = NDArray[Any]

STRENGTH = 0.75
"""How much of a picture its heat covers where that is full."""


def overlay(image: Array, values: Array, begin: float, full: float) -> Tensor:
    """A picture c h w, uint8, in gray under its heat map h w: bare below `begin`, yellow from `full` on: uint8 3 h
    w."""
    gray = torch.from_numpy(image.astype(np.float32)).mean(0).expand(3, -1, -1)
    share = torch.from_numpy(np.clip((values - begin) / (full - begin), 0, 1).astype(np.float32))
    colours = heat(share, 0.0, 1.0).float()
    alpha = STRENGTH * share.sqrt()
    return (gray * (1 - alpha) + colours * alpha).round().to(torch.uint8)


def outlined(image: Array, mask: Array | None) -> Tensor:
    """A picture c h w with its mask's outline in red: uint8 3 h w."""
    from scipy.ndimage import binary_dilation

    picture = torch.from_numpy(image).expand(3, -1, -1).clone()
    if mask is not None and mask.any():
        edge = torch.from_numpy(binary_dilation(mask, iterations=2) & ~mask)
        picture[:, edge] = torch.tensor([220, 30, 30], dtype=torch.uint8)[:, None]
    return picture


def sheet(
    images: Sequence[Array], heats: Sequence[Array], masks: Sequence[Array | None], normal_heat: float, columns: int = 4
) -> Image.Image:
    """Pictures, with outlines of what is wrong where that is known, each beside its heat.

    normal_heat: what one pixel in a thousand of a normal image reaches; there colour begins, and at three times it, it
    is full.
    """
    pairs = [
        grid(
            [
                [
                    outlined(image, mask),
                    overlay(image, values, normal_heat, normal_heat + 2 * max(abs(normal_heat), 1e-6)),
                ]
            ]
        )
        for image, values, mask in zip(images, heats, masks, strict=True)
    ]
    tiles = [torch.from_numpy(np.array(pair).transpose(2, 0, 1).copy()) for pair in pairs]
    return grid([tiles[i : i + columns] for i in range(0, len(tiles), columns)], gap=8)
