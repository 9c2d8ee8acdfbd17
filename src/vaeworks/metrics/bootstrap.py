"""How certain a figure is: the bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]

DRAWS = 1000
"""Resampled sets of images."""


@dataclass(frozen=True)
class Interval:
    """A figure, and between which values it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    def __contains__(self, other: float) -> bool:
        return self.low <= other <= self.high


def mean(sample: Array) -> Any:
    """Mean over the first axis."""
    return sample.mean(axis=0)


def bootstrap(sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """A statistic of n images, with the percentile interval of resampled sets of n.

    sample: n ..., one row per image, whatever the statistic needs of it; so that sets, too, can have a statistic that is no mean.
    One image has no interval: its ends are nan. Source: Efron & Tibshirani 1993, chapter 13.
    """
    value, low, high = intervals(sample, statistic, draws=draws, seed=seed)
    return Interval(float(value), float(low), float(high))


def intervals(
    sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Array, Array, Array]:
    """As `bootstrap`, for a statistic that is an array: values, lower and upper ends, each of its shape."""
    rows = np.asarray(sample, dtype=np.float64)
    value = np.asarray(statistic(rows), dtype=np.float64)
    if len(rows) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    random = np.random.default_rng(seed)
    drawn = np.stack([np.asarray(statistic(rows[random.integers(len(rows), size=len(rows))])) for _ in range(draws)])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return value, low, high
