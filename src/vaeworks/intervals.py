"""How certain a figure is: the bootstrap over images, the jackknife, and Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
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


FEW = 30
"""Images below which resampled sets say too little about the sampling distribution: the interval is Student's there."""


def bootstrap(
    sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A statistic of n images with its 95 % interval.

    sample: n ..., one row per image, holding whatever the statistic needs; so the statistic of a set need not be a
    mean. The interval of one image is nan. Below FEW images it is Student's, with the usual standard error of a mean;
    for other statistics, with the larger one of the jackknife's and the bootstrap's, because the jackknife's is wrong
    for medians. Few values of a skewed distribution cover less: of 8 from a lognormal one, the mean of 83 %. Else
    the percentiles of resampled sets of n, widened for the size of the sets.
    Source: Efron & Tibshirani 1993, chapters 11 and 13; Hesterberg 2015, "What teachers should know about the
    bootstrap", section 4.3, for the widening.
    """
    value, low, high = intervals(sample, statistic, draws=draws, seed=seed)
    return Interval(float(value), float(low), float(high))


def intervals(
    sample: ArrayLike, statistic: Callable[[Array], Any] = mean, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Array, Array, Array]:
    """As `bootstrap`, for a statistic that is an array. Returns values, lower and upper ends, each of its shape."""
    rows = np.asarray(sample, dtype=np.float64)
    n = len(rows)
    value = np.asarray(statistic(rows), dtype=np.float64)
    if n < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    if n < FEW:
        without = np.stack([np.asarray(statistic(np.delete(rows, i, axis=0)), dtype=np.float64) for i in range(n)])
        error = _jackknife_error(without)
        if statistic is not mean:
            error = np.fmax(error, _drawn(rows, statistic, draws, seed).std(axis=0))
        return value, value - quantile(n) * error, value + quantile(n) * error
    drawn = _drawn(rows, statistic, draws, seed)
    tail = float(scipy.special.ndtr(-math.sqrt(n / (n - 1)) * quantile(n)))
    low, high = np.percentile(drawn, (100 * tail, 100 * (1 - tail)), axis=0)
    return value, low, high


def _drawn(rows: Array, statistic: Callable[[Array], Any], draws: int, seed: int) -> Array:
    """The statistic of resampled sets of as many rows."""
    random, n = np.random.default_rng(seed), len(rows)
    return np.stack([np.asarray(statistic(rows[random.integers(n, size=n)])) for _ in range(draws)])


def quantile(n: int) -> float:
    """Standard errors in half a 95 % interval from n images: Student's, with n - 1 degrees of freedom."""
    return float(scipy.special.stdtrit(n - 1, 0.975))


def _jackknife_error(without: Array) -> Any:
    """The standard error of a figure, from figures that each leave one image (or set) out."""
    n = len(without)
    return np.sqrt((n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


NORMAL_95 = 1.96
"""Standard errors in half a 95 % interval of the normal distribution."""


def jackknife(value: float, without: ArrayLike) -> Interval:
    """A figure with its 95 % interval, Student's, from figures that each leave one image (or set) out.

    For figures that are curved in the data: resampled sets, with their repeated images, would bias those. without: n;
    the interval of fewer than two is nan. Source: Efron & Tibshirani 1993, chapter 11.
    """
    figures = np.asarray(without, dtype=np.float64)
    n = len(figures)
    if n < 2:
        return Interval(float(value), float("nan"), float("nan"))
    error = quantile(n) * _jackknife_error(figures)
    return Interval(float(value), float(value - error), float(value + error))


def student(values: ArrayLike) -> Interval:
    """Mean over repetitions, with Student's 95 % interval; the interval of one repetition is nan.

    Over choices of labels (and training seeds), it says how much that choice changes the mean; the test images are the
    same in all of them.
    """
    x: Array = np.asarray(values, dtype=np.float64)
    value = float(x.mean())
    if len(x) < 2:
        return Interval(value, math.nan, math.nan)
    width = quantile(len(x)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(value, value - width, value + width)
