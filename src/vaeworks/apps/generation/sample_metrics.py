"""How good a set of made pictures is: like real ones, as various as real ones, and no copies of them."""

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
"""Of the nearest-neighbour figures: Naeem et al. 2020."""

SIDE, COMPONENTS = 32, 32
"""Largest side in pixels of the pictures that are compared, and most principal components of them."""

AT_ONCE = 64
"""Pictures that are made smaller together."""

COPY = 0.5
"""A picture is a near-copy where the nearest real one is closer than so much of that one's distance to its own
nearest."""


@dataclass(frozen=True)
class Likeness:
    """A set of pictures against the real ones that a density was fitted to."""

    frechet: float
    """squared Fréchet distance of the features"""
    density: float
    """fidelity: how many real pictures' neighbourhoods a picture lies in, over what real ones do, about 1; more for
    safe, typical ones"""
    coverage: float
    """diversity: share of real pictures with one of these in their neighbourhood"""
    copies: float
    """share of near-copies"""
    recognized: float | None
    """share whose nearest labelled neighbours are all of one class; None without labels"""
    classes: float | None
    """classes in effect among these, e to the entropy; None without labels"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class PixelFeatures:
    """Principal components of pixels: a stated feature space, without any network."""

    def __init__(self, real: Tensor, labels: Sequence[str] | None = None):
        """Of real pictures uint8 n c h w; labels: a class per picture. Errors: DataError for too few to have
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
        """What the figures are of."""
        kept = float(self.pca.explained_variance_ratio_.sum())
        return (
            f"{self.pca.n_components_} principal components of pixels at {SIDE} px at most ({kept:.0%} of the "
            f"variance), k = {NEIGHBOURS}, {len(self.real)} real images"
        )

    def judge(self, pictures: Tensor) -> Likeness:
        """Pictures uint8 n c h w, at least two, against the real ones.

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
    """n d in [0,1] of uint8 n c h w, made smaller by the mean of areas."""
    if max(pictures.shape[-2:]) > SIDE:
        parts = [F.interpolate(part.double(), size=(SIDE, SIDE), mode="area") for part in pictures.split(AT_ONCE)]
        return (torch.cat(parts) / 255).flatten(1).numpy()
    return (pictures.double() / 255).flatten(1).numpy()
