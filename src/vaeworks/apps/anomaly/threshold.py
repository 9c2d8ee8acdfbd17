"""Where an alarm begins: by a stated rate of false alarms, on normal images that nothing else was learned from."""

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
"""Normal images, with which there are two to fit, two to standardize on, and one for the threshold."""


ROUNDING = 1e-5
"""By which the same image's scores differ in batches of other sizes."""


@dataclass(frozen=True, eq=False)
class Split:
    """Which normal images are for what; rows of each."""

    fit: NDArray[np.intp]
    scale: NDArray[np.intp]
    """kinds of evidence are standardized on these"""
    threshold: NDArray[np.intp]


def sizes(count: int, held_out: float) -> tuple[int, int]:
    """How many of `count` normals are for scales and for the threshold: a third of those held out, and the rest."""
    held = max(3, round(held_out * count))
    scale = max(2, held // 3)
    return scale, held - scale


def split(images: NDArray[Any], held_out: float, seed: int) -> Split:
    """Normals by a hash of their content and the seed: order plays no part, and equal images are on one side.

    Errors: DataError for fewer than FEWEST images, or where too many are equal.
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
    """Errors: ConfigError for a rate outside (0, 1); DataError where `available` of `normals` are too few to keep
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
    """How many held-out normals a rate needs: 1 / rate - 1."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def smallest_rate(count: int) -> float:
    """The smallest rate that `count` held-out normals can keep: 1 / (count + 1)."""
    return 1 / (count + 1)


def conformal_rank(count: int, rate: float) -> int:
    """Which of `count` held-out scores, from the smallest, is the threshold: ceil((count + 1) (1 - rate)).

    A new normal image is then above it with a probability of at most `rate`.
    Source: split conformal prediction, Papadopoulos et al. 2002; Bates et al. 2021 (arXiv 2104.08279) for outliers.
    """
    return math.ceil((count + 1) * (1 - rate) - 1e-9)


def conformal_threshold(scores: ArrayLike, rate: float) -> float:
    """The threshold of held-out normals' scores, higher being more anomalous; a rounding above one of them."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    threshold = float(ordered[conformal_rank(len(ordered), rate) - 1])
    return threshold + ROUNDING * abs(threshold)


def alarm_range(count: int, rate: float) -> tuple[float, float]:
    """Between which shares of alarms a threshold from `count` held-out normals lies with 95 %: how far chance takes it
    from the rate.

    That share is distributed as Beta(count + 1 - k, k), k being the threshold's rank.
    """
    from scipy.stats import beta

    k = conformal_rank(count, rate)
    low, high = beta.ppf((0.025, 0.975), count + 1 - k, k)
    return float(low), float(high)


def p_values(scores: ArrayLike, held_out: ArrayLike) -> NDArray[np.float64]:
    """(1 + how many of m held-out normals score at least as high) / (m + 1), for every score."""
    ordered = np.sort(np.asarray(held_out))
    return (1 + len(ordered) - np.searchsorted(ordered, np.asarray(scores), side="left")) / (len(ordered) + 1)
