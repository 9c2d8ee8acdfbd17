"""Features without a network: statistics of wavelet bands. They are unpublished and compare only with themselves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses.pyramids import haar

SCALES = 5
FLOOR = 1 / 12
"""Mean square of rounding to whole gray levels; smaller values are no detail."""

COLOUR = 16.0
"""Gray levels of a colour's mean that weigh as much as a factor e of a band's energy."""

DIMENSIONS = 3 * (2 * 3 * SCALES + 1)

OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1 / 2, -1 / 2, 0), (1 / 4, 1 / 4, -1 / 2))
"""Luminance, red - green, yellow - blue."""


def wavelet_statistics(image: Tensor) -> np.ndarray:
    """Log energy and log kurtosis of every Haar band at 5 scales in luminance and two opponent colours, and the
    colours' means.

    image: uint8, c h w; sides are filled up to multiples of 32 by repeating the border. Returns `DIMENSIONS` numbers.
    """
    x = image.double().expand(3, -1, -1)
    planes = torch.einsum("kc,chw->khw", torch.tensor(OPPONENT, dtype=torch.float64, device=x.device), x)[None]
    found = [planes.mean((0, 2, 3)) / COLOUR]
    low = F.pad(planes, (0, -planes.shape[-1] % 2**SCALES, 0, -planes.shape[-2] % 2**SCALES), mode="replicate")
    for _ in range(SCALES):
        low, details = haar(low)
        for band in details.unbind(2):
            square = band.square().mean((0, 2, 3))
            fourth = band.pow(4).mean((0, 2, 3))
            found.append((square + FLOOR).log())
            found.append(((fourth + 3 * FLOOR**2) / (square + FLOOR).square()).log())
        low = low / 2  # a mean again, so that gray levels stay gray levels
    return torch.cat(found).cpu().numpy().astype(np.float32)
