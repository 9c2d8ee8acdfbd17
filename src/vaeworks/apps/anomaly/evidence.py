"""Evidence against an image: maps of distances, and one number per map.

reconstruction    local RMS difference from the reconstruction, at three scales: the model cannot draw anomalies
features          the same difference in a network's features, each of length one as in LPIPS
density           Mahalanobis distance of latents from a Gaussian of normal images' latents

The number of a map is the mean of its largest 1 %, so that a small defect counts and a single odd pixel counts less.
Kinds of evidence become comparable as robust z-scores, (value - median) / (1.4826 MAD), with median and MAD of normal
images that nothing was fitted on. The z-scores are averaged, or the largest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .density import Gaussian
from .extractors import Views

Array = NDArray[Any]
Combine = Literal["mean", "max"]

EVIDENCE = ("reconstruction", "features", "density")
TOP = 0.01
"""Share of a map's positions, the largest, whose mean is the map's number."""

SMALLEST = 1e-3
"""Smallest spread, as a share of the median."""

SCALES = 1 / 128, 2 / 128, 4 / 128
"""Standard deviations of the smoothing, as shares of the shorter side: 2, 4 and 8 px of 256."""


@dataclass(frozen=True)
class EvidenceScale:
    """Centre and spread of one kind of evidence on normal images."""

    centre: float
    spread: float

    @classmethod
    def of(cls, values: Array) -> EvidenceScale:
        """Median and 1.4826 MAD; the standard deviation where more than half of the values are equal, 1 where all are.

        The spread is at least SMALLEST of the median, so that rounding is no anomaly.
        """
        centre = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - centre))) or float(np.std(values))
        return cls(centre, max(spread, SMALLEST * abs(centre)) or 1.0)

    def __call__(self, values: Array) -> Array:
        return (values - self.centre) / self.spread


def smoothed(squared: Array) -> Array:
    """Local RMS of squared differences n h w, mean over SCALES: n h w. Rows of a table (n 1 d) are not smoothed."""
    from scipy.ndimage import gaussian_filter

    side = min(squared.shape[1:])
    if side == 1:
        return np.sqrt(squared)
    return sum(np.sqrt(np.maximum(gaussian_filter(squared, (0, s * side, s * side)), 0)) for s in SCALES) / len(SCALES)


def pooled(maps: Array) -> Array:
    """The mean of the largest TOP of every map n h w, at least one: n."""
    rows = maps.reshape(len(maps), -1)
    count = max(1, round(TOP * rows.shape[1]))
    return np.partition(rows, -count, axis=1)[:, -count:].mean(1)


def raw_maps(views: Views, gaussian: Gaussian | None, names: tuple[str, ...]) -> dict[str, Array]:
    """Maps of distances by kind of evidence, n h w each; maps of density have the latents' resolution."""
    found: dict[str, Array] = {}
    for name in names:
        if name == "reconstruction":
            found[name] = smoothed(views.error)
        elif name == "features":
            assert views.features is not None
            found[name] = np.sqrt(views.features)
        else:
            assert gaussian is not None
            found[name] = gaussian.distance(views.latents)
    return found


def combined(values: Mapping[str, Array], how: Combine) -> Array:
    """One value from the standardized values of all kinds of evidence."""
    stacked = np.stack(list(values.values()))
    return stacked.mean(0) if how == "mean" else stacked.max(0)


def enlarged(maps: Array, height: int, width: int, factor: int) -> Array:
    """Maps n h' w', whose positions are `factor` pixels wide, enlarged to n height width: bilinear, then without the
    padding."""
    import torch
    import torch.nn.functional as F

    if maps.shape[1:] == (1, 1):
        return np.broadcast_to(maps, (len(maps), height, width)).copy()
    size = maps.shape[1] * factor, maps.shape[2] * factor
    large = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(maps))[:, None], size, mode="bilinear", align_corners=False
    )
    return large[:, 0, :height, :width].numpy()
