"""Distances between a set of images and the set of their reconstructions, with warnings about small sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..intervals import Interval
from .feature_spaces import INCOMPARABLE, STATISTICS, Features
from .frechet import frechet_distance, paired_interval
from .kernel import kernel_distance, published_estimate

ENOUGH = 2048
"""Images below which a Fréchet distance does not compare with others, in any dimension."""


@dataclass(frozen=True)
class SetDistances:
    """Distances between images and their reconstructions as two sets."""

    frechet_name: str
    kernel_name: str
    frechet: Interval
    kernel: Interval
    kernel_published: float
    """estimate of published figures (torchmetrics), for independent sets"""
    count: int
    """images"""
    dimensions: int
    """of the feature space"""
    frechet_half: float
    """the Fréchet distance of every second image alone, which shows the effect of the number of images"""
    draws: int
    """resampled sets for the Fréchet distance's interval"""
    warnings: tuple[str, ...] = ()
    """remarks about the figures"""


def set_distances(features: Features, original: np.ndarray, recon: np.ndarray) -> SetDistances | None:
    """Fréchet and kernel distance between features n d of images and of their reconstructions, row by row.

    None for fewer than two images.
    """
    n, d = original.shape
    if n < 2:
        return None
    frechet, draws = paired_interval(original, recon)
    half = frechet_distance(original[::2], recon[::2]) if n > 3 else float("nan")
    said = tuple(_warnings(features, n, d))
    kernel, published = kernel_distance(original, recon), published_estimate(original, recon)
    return SetDistances(features.frechet, features.kernel, frechet, kernel, published, n, d, half, draws, said)


def _warnings(features: Features, n: int, d: int) -> list[str]:
    said = []
    if features.name == STATISTICS:
        said.append(f"{features.frechet} is of fixed wavelet statistics, without a network: {INCOMPARABLE}")
    elif features.name != "inception":
        said.append(f"{features.frechet} compares only with figures of the same network and weights; it is no FID")
    if n < ENOUGH or n <= d:
        why = (
            f"{n:,} images are fewer than {ENOUGH:,}"
            if n < ENOUGH
            else f"{n:,} images are not more than the {d:,} dimensions"
        )
        said.append(
            f"{why}: {features.frechet} is biased, mostly upward, and compares only at equal n and equal images"
        )
    return said
