"""Kernel distance between two sets of images, as in KID: without bias for any number of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..intervals import DRAWS, Interval

Array = NDArray[np.floating[Any]]

BLOCK = 2048
"""Largest number of images compared pairwise; more images are averaged over blocks, which bounds memory."""


def kernel_distance(original: Array, recon: Array, seed: int = 0) -> Interval:
    """Squared maximum mean discrepancy of features n d of images and of their reconstructions, with the kernel (x·y / d
    + 1)³.

    Rows are pairs. The estimate is unbiased for any n, so it can be negative. An image is compared neither with itself
    nor with its own reconstruction, because the two are dependent; estimators for independent sets include that pair
    and give too small values. The interval is a bootstrap over pairs. nan for fewer than two images and for features
    that are not finite.
    Source: Gretton et al. 2012, equation 4; Bińkowski et al. 2018 (arXiv 1801.01401).
    """
    nan = float("nan")
    if len(original) < 2 or not (np.isfinite(original).all() and np.isfinite(recon).all()):
        return Interval(nan, nan, nan)
    count = -(-len(original) // BLOCK)
    random = np.random.default_rng(seed)
    values, drawn, sizes = [], [], []
    for a, b in zip(np.array_split(original, count), np.array_split(recon, count), strict=True):
        h = discrepancies(a, b)
        once = np.ones((1, len(a)))
        again = random.multinomial(len(a), np.full(len(a), 1 / len(a)), size=DRAWS).astype(np.float64)
        values.append(_mean_of_pairs(h, once)[0])
        drawn.append(_mean_of_pairs(h, again))
        sizes.append(len(a))
    value = float(np.average(values, weights=sizes))
    if len(original) < 3:
        return Interval(value, nan, nan)
    low, high = np.nanpercentile(np.average(drawn, axis=0, weights=sizes), (2.5, 97.5))
    return Interval(value, float(low), float(high))


def published_estimate(original: Array, recon: Array) -> float:
    """KID as published figures have it, by torchmetrics: it takes images and reconstructions as independent, so it is
    smaller.

    Features n d; mean over blocks; nan as in `kernel_distance`.
    """
    if len(original) < 2 or not (np.isfinite(original).all() and np.isfinite(recon).all()):
        return float("nan")
    from torchmetrics.image.kid import poly_mmd  # seconds to import

    count = -(-len(original) // BLOCK)
    pairs = list(zip(np.array_split(original, count), np.array_split(recon, count), strict=True))
    values = [poly_mmd(*(torch.from_numpy(f).double() for f in pair)).item() for pair in pairs]
    return float(np.average(values, weights=[len(a) for a, _ in pairs]))


def discrepancies(a: Array, b: Array) -> Array:
    """k(aᵢ, aⱼ) + k(bᵢ, bⱼ) - k(aᵢ, bⱼ) - k(aⱼ, bᵢ) of features n d: n n."""
    x, y = (np.asarray(f, dtype=np.float64) for f in (a, b))
    between = cubic(x, y)
    return cubic(x, x) + cubic(y, y) - between - between.T


def cubic(x: Array, y: Array) -> Array:
    """KID's kernel for every pair of rows."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_pairs(h: Array, counts: Array) -> Array:
    """Mean of h over pairs of different images, weighted by how often each was drawn: counts k n to k."""
    pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
    total = ((counts @ h) * counts).sum(1) - (counts**2) @ np.diag(h)
    with np.errstate(invalid="ignore", divide="ignore"):  # a set that is one image n times over has no pair
        return total / pairs
