"""The threshold for a rate of false alarms, from normal images that nothing else was fitted on."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import count as numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import ConfigError, DataError

DEFAULT_RATE = 0.05
FEWEST = 5
"""Fewest normal images: two to fit, two to standardize, one for the threshold."""


ROUNDING = 1e-5
"""Relative difference of an image's scores between batch sizes."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the normal images by their use."""

    fit: NDArray[np.intp]
    scale: NDArray[np.intp]
    """to standardize the kinds of evidence"""
    threshold: NDArray[np.intp]


def sizes(count: int, held_out: float) -> tuple[int, int]:
    """How many of `count` normal images standardize, and how many set the threshold: a third of those held out, and the
    others."""
    held = max(3, round(held_out * count))
    scale = max(2, held // 3)
    return scale, held - scale


def split(images: NDArray[Any], held_out: float, seed: int) -> Split:
    """Split normal images by a hash of content and seed: independent of their order, and equal images have one use.

    Errors: DataError for fewer than FEWEST images, or too many equal ones.
    """
    n = len(images)
    if n < FEWEST:
        raise DataError(f"n_samples = {n}: at least {FEWEST} normal images are needed; give {FEWEST - n} more")
    keys = np.array(
        [hashlib.sha256(str(seed).encode() + row.tobytes()).hexdigest() for row in np.ascontiguousarray(images)]
    )
    scale, threshold = sizes(n, held_out)
    order = np.sort(keys)
    first, last = keys <= order[scale - 1], keys <= order[min(scale + threshold, n) - 1]
    parts = Split(np.flatnonzero(~last), np.flatnonzero(first), np.flatnonzero(last & ~first))
    if len(parts.fit) < 2 or not len(parts.threshold):
        raise DataError(
            f"of {n} normal images only {len(set(keys))} differ, which leaves too few; give more, or a smaller held_out"
        )
    return parts


def check_rate(rate: float, available: int, normals: int, held_out: float) -> None:
    """Errors: ConfigError for a rate outside (0, 1); DataError where `available` of `normals` images are too few for
    it."""
    if not 0 < rate < 1:
        raise ConfigError(f"false_alarms (={rate}) must be between 0 and 1")
    needed = fewest(rate)
    if available < needed:
        more = next(m for m in numbers(1) if sizes(normals + m, held_out)[1] >= needed)
        raise DataError(
            f"false_alarms (={rate:g}) needs at least 1/{rate:g} - 1 = {needed} normals for the threshold, {available} "
            f"of {normals} are held out for it: give {more} more, or a rate of at least "
            f"{smallest_rate(available):.2g}, or a larger held_out (={held_out:g})"
        )


def fewest(rate: float) -> int:
    """Number of held-out normal images that a rate needs: 1 / rate - 1."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def smallest_rate(count: int) -> float:
    """Smallest rate for `count` held-out normal images: 1 / (count + 1)."""
    return 1 / (count + 1)


def conformal_rank(count: int, rate: float) -> int:
    """Rank of the threshold among `count` held-out scores, from the smallest: ceil((count + 1) (1 - rate)).

    A new normal image then exceeds the threshold with a probability of at most `rate`.
    Source: split conformal prediction, Papadopoulos et al. 2002; Bates et al. 2021 (arXiv 2104.08279) for outliers.
    """
    return math.ceil((count + 1) * (1 - rate) - 1e-9)


def conformal_threshold(scores: ArrayLike, rate: float) -> float:
    """The threshold from the scores of held-out normal images: one of them, plus ROUNDING. Higher is more anomalous."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    threshold = float(ordered[conformal_rank(len(ordered), rate) - 1])
    return threshold + ROUNDING * abs(threshold)


def alarm_range(count: int, rate: float) -> tuple[float, float]:
    """95 % range of the share of normal images above a threshold from `count` held-out images.

    The share has the distribution Beta(count + 1 - k, k), where k is the threshold's rank.
    """
    from scipy.stats import beta

    k = conformal_rank(count, rate)
    low, high = beta.ppf((0.025, 0.975), count + 1 - k, k)
    return float(low), float(high)


def p_values(scores: ArrayLike, held_out: ArrayLike) -> NDArray[np.float64]:
    """For every score, (1 + number of held-out scores at least as high) / (number of held-out scores + 1)."""
    ordered = np.sort(np.asarray(held_out))
    return (1 + len(ordered) - np.searchsorted(ordered, np.asarray(scores), side="left")) / (len(ordered) + 1)
