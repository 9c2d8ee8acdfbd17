"""Figures of anomaly detection: AUROC of images and, where masks are known, of pixels and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError
from ...intervals import DRAWS, Interval

LIMIT = 0.3
"""PRO is integrated over false positive rates of pixels up to this."""


def auroc(normal: ArrayLike, anomalous: ArrayLike, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Probability that an anomalous image scores higher than a normal one, ties counting half; with a 95 % bootstrap
    interval.

    Normal and anomalous images are resampled separately. Source: Hanley & McNeil 1982.
    Errors: DataError where one of the two has no image.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (anomalous, normal))
    if not len(a) or not len(b):
        raise DataError(
            f"AUROC is undefined: there are {len(b)} normal and {len(a)} anomalous images; give some of both"
        )
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    random = np.random.default_rng(seed)
    times = [random.multinomial(len(v), np.full(len(v), 1 / len(v)), size=draws) / len(v) for v in (a, b)]
    drawn = np.einsum("da,da->d", times[0], times[1] @ wins.T)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(wins.mean()), float(low), float(high))


@dataclass(frozen=True)
class Localization:
    """How well heat maps show the place of anomalies."""

    pixel_auroc: float
    pro: float
    """per-region overlap, mean over false positive rates up to LIMIT, in [0,1]"""


def localization(maps: NDArray[Any], masks: NDArray[np.bool_], limit: float = LIMIT) -> Localization:
    """AUROC of pixels, and PRO: the share of each defect, large or small, that is found at false positive rates up to
    `limit`.

    maps: n h w. masks: n h w, true where something is anomalous. A region is a connected component, with diagonal
    neighbours. Equal values are one threshold.
    Source: Bergmann et al. 2020 (arXiv 1911.02357). Errors: DataError where no pixel is anomalous, or all are.
    """
    if not masks.any() or masks.all():
        raise DataError("figures of pixels are undefined: the masks must have both anomalous and normal pixels")
    order = np.argsort(-maps, axis=None, kind="stable")
    values = maps.reshape(-1)[order]
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    false_positives, true_positives, overlap = (
        np.concatenate([[0.0], np.cumsum(weights.reshape(-1)[order], dtype=np.float64)[ends] / total])
        for weights, total in ((~masks, (~masks).sum()), (masks, masks.sum()), _region_weights(masks))
    )
    return Localization(_area(false_positives, true_positives, 1.0), _area(false_positives, overlap, limit))


def _region_weights(masks: NDArray[np.bool_]) -> tuple[NDArray[np.float32], int]:
    """1 / size for every pixel of a region, and the number of regions."""
    from scipy.ndimage import label

    weights = np.zeros(masks.shape, np.float32)
    count = 0
    for mask, row in zip(masks, weights, strict=True):
        regions, found = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(regions.reshape(-1))
        row[mask] = 1 / sizes[regions[mask]]
        count += found
    return weights, count


def _area(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Mean of the curve through (x, y), x ascending from 0, between 0 and `limit`."""
    last = int(np.searchsorted(x, limit, side="right"))
    end = float(np.interp(limit, x, y))
    return float(np.trapezoid(np.append(y[:last], end), np.append(x[:last], limit)) / limit)


def shares(flags: Sequence[bool] | NDArray[np.bool_]) -> Interval:
    """The share of true flags, with Wilson's 95 % interval."""
    from ...metrics.legibility import wilson

    return wilson(int(np.sum(flags)), len(flags))
