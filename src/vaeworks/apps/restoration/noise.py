"""Estimate the noise of an image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError

ROOT = math.sqrt(3)
DETAIL = np.array([1 - ROOT, -(3 - ROOT), 3 + ROOT, -(1 + ROOT)]) / (4 * math.sqrt(2))
"""Daubechies' wavelet of two vanishing moments: 0 for constant and linear signals, norm 1."""

NORMAL = 0.6744897501960817
"""Median of |x| of a standard normal x."""

LEAST = 64
"""Fewest wavelet coefficients for a median."""


def estimate_noise(image: Tensor, missing: Tensor | None = None) -> float:
    """Standard deviation of white noise in an image uint8 c h w, in gray levels, mean over channels.

    It is the median of absolute diagonal details of the finest scale / 0.6745 (Donoho & Johnstone 1994), as in
    scikit-image's `estimate_sigma`, over wavelets on known pixels alone. Fine texture counts as noise.
    missing: bool h w. Errors: DataError where too few pixels are known.
    """
    known = np.ones(image.shape[-2:]) if missing is None else 1.0 - missing.numpy()
    whole = _filtered(known, np.ones(4)) > 15.5
    if whole.sum() < LEAST:
        raise DataError(
            f"the noise cannot be estimated from {int(known.sum())} known pixels that lie apart; give it with --noise "
            "SIGMA"
        )
    details = [np.abs(_filtered(channel.astype(np.float64), DETAIL))[whole] for channel in image.numpy()]
    return float(np.mean([np.median(d[d > 0]) / NORMAL if (d > 0).any() else 0.0 for d in details]))


def _filtered(values: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every second value of a separable filter, without padding."""
    for axis in (0, 1):
        if values.shape[axis] < len(taps):
            return np.zeros((0, 0))
        windows = np.lib.stride_tricks.sliding_window_view(values, len(taps), axis)
        values = (windows @ taps)[::2] if axis == 0 else (windows @ taps)[:, ::2]
    return values
