"""Metrics of generated images: fidelity, diversity, and near-copies of real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from ...errors import DataError
from ...metrics import frechet_distance

Array = NDArray[np.floating[Any]]

NEIGHBOURS = 5
"""Neighbours of the nearest-neighbour metrics: Naeem et al. 2020."""

SIDE, COMPONENTS = 32, 32
"""Most pixels along a side of compared images, and most principal components of them."""

AT_ONCE = 64
"""Images that are downscaled together."""

COPY = 0.5
"""A sample is a near-copy if its nearest real image is closer than this share of that image's distance to its own
nearest neighbour."""


@dataclass(frozen=True)
class Likeness:
    """Metrics of a set of images against the real images that a density was fitted to."""

    frechet: float
    """squared Fréchet distance of the features"""
    density: float
    """fidelity: real images' neighbourhoods that a sample lies in, relative to real images; about 1, more for safe,
    typical samples"""
    coverage: float
    """diversity: share of real images with a sample in their neighbourhood"""
    copies: float
    """share of near-copies"""
    recognized: float | None
    """share of samples whose nearest labelled neighbours all have one class; None without labels"""
    classes: float | None
    """effective number of classes among the samples, e to the entropy; None without labels"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class PixelFeatures:
    """A feature space without a network: principal components of pixels."""

    def __init__(self, real: Tensor, labels: Sequence[str] | None = None):
        """real: images uint8 n c h w. labels: a class per image. Errors: DataError for too few images to have
        neighbours."""
        if len(real) <= 2 * NEIGHBOURS:
            raise DataError(
                f"{len(real)} real images are too few to judge samples by; give at least {2 * NEIGHBOURS + 1}"
            )
        x = _pixels(real)
        self.pca = PCA(min(COMPONENTS, *x.shape), svd_solver="full").fit(x)
        self.real = self.pca.transform(x)
        self.nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(self.real)
        distances = self.nearest.kneighbors(return_distance=True)[0]  # of training points to others than themselves
        self.radius, self.apart = distances[:, -1], distances[:, 0]
        self.labels = None if labels is None else np.asarray(labels)
        self.classifier = None if labels is None else KNeighborsClassifier(NEIGHBOURS).fit(self.real, self.labels)

    @property
    def stated(self) -> str:
        """The feature space in words."""
        kept = float(self.pca.explained_variance_ratio_.sum())
        return (
            f"{self.pca.n_components_} principal components of pixels at {SIDE} px at most ({kept:.0%} of the "
            f"variance), k = {NEIGHBOURS}, {len(self.real)} real images"
        )

    def judge(self, pictures: Tensor) -> Likeness:
        """Metrics of at least two images uint8 n c h w against the real ones.

        Density and coverage: Naeem et al. 2020 (arXiv 2002.09797). Near-copies: the ratio of nearest-neighbour
        distances of Alaa et al. 2022 (arXiv 2102.08921), with a stricter limit.
        """
        x = self.pca.transform(_pixels(pictures))
        distances = cdist(x, self.real)
        inside = distances < self.radius
        closest = distances.argmin(1)
        votes = None if self.classifier is None else self.classifier.predict_proba(x)
        return Likeness(
            frechet_distance(x, self.real),
            float(inside.sum() / (NEIGHBOURS * len(x))),
            float(inside.any(0).mean()),
            float((distances.min(1) < COPY * self.apart[closest]).mean()),
            None if votes is None else float((votes.max(1) == 1).mean()),
            None if votes is None else _in_effect(votes.mean(0)),
        )


def _in_effect(shares: Array) -> float:
    """e to the entropy of shares that sum to 1."""
    present = shares[shares > 0]
    return float(np.exp(-(present * np.log(present)).sum()))


def _pixels(pictures: Tensor) -> Array:
    """Images uint8 n c h w, downscaled by area averaging, as n d in [0,1]."""
    if max(pictures.shape[-2:]) > SIDE:
        parts = [F.interpolate(part.double(), size=(SIDE, SIDE), mode="area") for part in pictures.split(AT_ONCE)]
        return (torch.cat(parts) / 255).flatten(1).numpy()
    return (pictures.double() / 255).flatten(1).numpy()
