"""How certain a figure is: the bootstrap over images, the jackknife, and Student's t."""

from __future__ import annotations

import math
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
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __contains__(self, other: float) -> bool:
        return self.low <= other <= self.high


def mean(sample: Array) -> Any:
    """Mean over the first axis."""
    return sample.mean(axis=0)


def bootstrap(
    sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A statistic of n images, with the percentile interval of resampled sets of n.

    sample: n ..., one row per image, holding whatever the statistic needs; so the statistic of a set need not be a
    mean. The interval of one image is nan. Source: Efron & Tibshirani 1993, chapter 13.
    """
    value, low, high = intervals(sample, statistic, draws=draws, seed=seed)
    return Interval(float(value), float(low), float(high))


def intervals(
    sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Array, Array, Array]:
    """As `bootstrap`, for a statistic that is an array. Returns values, lower and upper ends, each of its shape."""
    rows = np.asarray(sample, dtype=np.float64)
    value = np.asarray(statistic(rows), dtype=np.float64)
    if len(rows) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    random = np.random.default_rng(seed)
    drawn = np.stack([np.asarray(statistic(rows[random.integers(len(rows), size=len(rows))])) for _ in range(draws)])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return value, low, high


NORMAL_95 = 1.96
"""Standard errors in half a 95 % interval of the normal distribution."""


def jackknife(value: float, without: ArrayLike) -> Interval:
    """A figure with its 95 % interval, value +- 1.96 standard errors, from figures that each leave one image (or set)
    out.

    For figures that are curved in the data: resampled sets, with their repeated images, would bias those. without: n;
    the interval of fewer than two is nan. Source: Efron & Tibshirani 1993, chapter 11.
    """
    figures = np.asarray(without, dtype=np.float64)
    n = len(figures)
    if n < 2:
        return Interval(float(value), float("nan"), float("nan"))
    error = NORMAL_95 * np.sqrt((n - 1) / n * ((figures - figures.mean()) ** 2).sum())
    return Interval(float(value), float(value - error), float(value + error))


def student(values: ArrayLike) -> Interval:
    """Mean over repetitions, with Student's 95 % interval; the interval of one repetition is nan.

    Over choices of labels (and training seeds), it says how much that choice changes the mean; the test images are the
    same in all of them.
    """
    from scipy.stats import t

    x: Array = np.asarray(values, dtype=np.float64)
    value = float(x.mean())
    if len(x) < 2:
        return Interval(value, math.nan, math.nan)
    width = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(value, value - width, value + width)
