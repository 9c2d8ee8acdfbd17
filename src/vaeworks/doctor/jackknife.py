"""How certain a figure is that is curved in the data, for which resampled sets, with their repeated images, would be biased."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..metrics.bootstrap import Interval

NORMAL_95 = 1.96


def jackknife(value: float, without: ArrayLike) -> Interval:
    """A figure with its 95 % interval, value +- 1.96 standard errors, from the figures that leave one image (or set of images) out.

    without: n. Two are needed; else the ends are nan. Source: Efron & Tibshirani 1993, chapter 11.
    """
    figures = np.asarray(without, dtype=np.float64)
    n = len(figures)
    if n < 2:
        return Interval(float(value), float("nan"), float("nan"))
    error = NORMAL_95 * np.sqrt((n - 1) / n * ((figures - figures.mean()) ** 2).sum())
    return Interval(float(value), float(value - error), float(value + error))
