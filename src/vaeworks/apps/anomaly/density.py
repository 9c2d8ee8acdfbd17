"""Density of latents: Gaussians with shrunk covariance, one per position or one for all positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["position", "shared"]

FLOOR = 1e-6
"""Smallest variance, as a share of the mean variance: a constant channel has none."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian of latents n c h w."""

    mean: Array
    """p c; p is h * w, or 1 for a shared Gaussian"""
    whitening: Array
    """p c c: inverse Cholesky factors of the covariances"""

    @classmethod
    def fitted(cls, latents: Array, kind: Kind = "position") -> Gaussian:
        """Means and Ledoit & Wolf's covariances of latents n c h w.

        kind: "position", one Gaussian per position, for aligned objects; "shared", one for all positions, for textures
        and objects in any pose.
        Source: PaDiM, Defard et al. 2020 (arXiv 2011.08785); Ledoit & Wolf 2004 for the shrinkage, in place of
        PaDiM's constant.
        """
        from sklearn.covariance import ledoit_wolf

        places = latents.reshape(*latents.shape[:2], -1).transpose(2, 0, 1)  # p n c
        if kind == "shared":
            places = places.reshape(1, -1, latents.shape[1])
        covariance = np.stack([ledoit_wolf(rows)[0] for rows in places])
        channels = np.arange(latents.shape[1])
        floor = FLOOR * covariance[:, channels, channels].mean()
        covariance[:, channels, channels] += floor if floor > 0 else 1.0
        return cls(places.mean(1), np.linalg.inv(np.linalg.cholesky(covariance)).astype(latents.dtype))

    def distance(self, latents: Array) -> Array:
        """Mahalanobis distance of every position of latents n c h w: n h w."""
        n, c, h, w = latents.shape
        centred = latents.reshape(n, c, h * w).transpose(2, 1, 0) - self.mean[:, :, None]  # p c n
        return np.sqrt(np.square(self.whitening @ centred).sum(1)).T.reshape(n, h, w)
