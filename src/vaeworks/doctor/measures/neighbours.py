"""Whether images of one class are neighbours in latent space, and whether a linear model finds their class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

FOLDS = 5
"""Of the probe's cross-validation."""


def nearest(vectors: Array, k: int) -> NDArray[np.int64]:
    """Numbers n k of the k vectors with the largest cosine to each of n d, nearest first, itself left out. Of equals,
    the first."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, :k]


def same_label(vectors: Array, labels: Sequence[str], k: int) -> Array:
    """LNC@k: share of the k nearest others, by cosine after the mean over all is taken away, that have the same label:
    n.

    vectors: n d, one per image. Source: arXiv 2606.03578.
    """
    names = np.asarray(labels)
    return np.asarray((names[nearest(vectors - vectors.mean(0), k)] == names[:, None]).mean(1))


def chance_same(labels: Sequence[str]) -> float:
    """Probability that another image, drawn at random, has the same label."""
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    n = counts.sum()
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def majority(labels: Sequence[str]) -> float:
    """Share of the most frequent label: what a model without information gets right."""
    return float(np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels))


def object_mean(z: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of n c h w over positions, weighted by the share of each that is object: n c. mask: bool n H W, or None for
    all alike.

    Where an image has no object, all positions count.
    """
    if mask is None:
        return z.mean((2, 3))
    weight = F.adaptive_avg_pool2d(mask[:, None].float(), (z.shape[-2], z.shape[-1]))
    weight = torch.where(weight.sum((2, 3), keepdim=True) > 0, weight, torch.ones_like(weight))
    return (z * weight).sum((2, 3)) / weight.sum((2, 3))


def pooled(x: Tensor, cells: int) -> Tensor:
    """n c h w as mean and standard deviation over positions, and means of cells x cells parts: n c (2 + cells^2)."""
    return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0), F.adaptive_avg_pool2d(x, cells).flatten(1)], dim=1)


def probe(features: Array, labels: Sequence[str], seed: int = 0) -> Array:
    """Whether a logistic regression that has not seen an image gives it its label, by image: n, 0 or 1.

    features: n d, standardized within each training part. Stratified FOLDS-fold cross-validation; every label on FOLDS
    images at least.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    names = np.asarray(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly converged is a probe
        guessed = cross_val_predict(model, features, names, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed))
    return np.asarray(guessed == names, dtype=np.float64)
