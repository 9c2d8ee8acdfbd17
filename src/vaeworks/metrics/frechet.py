"""Fréchet distance: two sets of images as two Gaussians in a feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intervals import Interval

Array = NDArray[np.floating[Any]]

DRAWS = 200
"""Resampled sets for an interval, at most."""

BUDGET = 2e10
"""Limit of the sum of d³ over the resampled sets: some seconds, or a minute for d = 2048."""


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """A set's mean and covariance in a feature space."""

    mean: Array
    """d"""
    root: Array
    """R, k d, with RᵀR the covariance and k as small as possible"""


def frechet_distance(a: Array, b: Array) -> float:
    """Squared Fréchet distance |m_a - m_b|² + tr(S_a + S_b - 2 √(S_a S_b)) of features n_a d and n_b d; nan where they
    are not finite.

    Exact for fewer rows than columns, too: with A and B the centred features over √(n - 1), the trace of the root is
    the sum of the singular values of A Bᵀ, which needs no root of a singular matrix. Source: Dowson & Landau 1982;
    Heusel et al. 2017 (arXiv 1706.08500).
    Errors: ValueError for fewer than two rows.
    """
    return moments_distance(moments(a), moments(b))


def moments_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """As `frechet_distance`, from the moments of both sets."""
    if not (np.isfinite(a.root).all() and np.isfinite(b.root).all()):
        return float("nan")
    overlap = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.square(a.root).sum() + np.square(b.root).sum() - 2 * overlap
    return max(float(distance), 0.0)  # rounding


def moments(features: Array) -> FeatureMoments:
    """Moments of features n d; nan where they are not finite. Errors: ValueError for fewer than two rows."""
    if len(features) < 2:
        raise ValueError("a covariance needs at least two rows")
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        return FeatureMoments(np.full(x.shape[1], np.nan), np.full((1, x.shape[1]), np.nan))
    mean = x.mean(0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    return FeatureMoments(mean, centred if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(centred, mode="r")))


def paired_interval(original: Array, recon: Array, seed: int = 0) -> tuple[Interval, int]:
    """The Fréchet distance between features n d of images and reconstructions with a 95 % interval, and the number of
    resampled sets.

    The interval is ±1.96 standard deviations over resampled sets of n images, each with its reconstruction. Percentiles
    would be biased, because resampled sets contain repeats. nan for fewer than 3 images.
    """
    value = frechet_distance(original, recon)
    n = len(original)
    if n < 3 or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan")), 0
    a, b = compact(original, recon)
    draws = int(np.clip(BUDGET / min(n, a.shape[1]) ** 3, 20, DRAWS))
    random = np.random.default_rng(seed)
    drawn = [frechet_distance(a[rows], b[rows]) for rows in (random.integers(n, size=n) for _ in range(draws))]
    spread = 1.96 * float(np.std(drawn, ddof=1))
    return Interval(value, max(value - spread, 0.0), value + spread), draws


def compact(a: Array, b: Array) -> tuple[Array, Array]:
    """Both sets in a basis of their common span: the same distances in fewer dimensions."""
    x = np.concatenate([a, b]).astype(np.float64)
    if len(x) >= x.shape[1]:
        return x[: len(a)], x[len(a) :]
    basis, _ = np.linalg.qr(x.T)
    turned = x @ basis
    return turned[: len(a)], turned[len(a) :]
