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
"""Folds of the probe's cross-validation."""


def nearest(vectors: Array, k: int) -> NDArray[np.int64]:
    """Numbers n k of the k other vectors with the largest cosine to each of n d, nearest first; of equal ones, the
    first."""
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
    """Share of the most frequent label: the accuracy of a model without information."""
    return float(np.unique(np.asarray(labels), return_counts=True)[1].max() / len(labels))


def object_mean(z: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of n c h w over positions, each weighted by the share that the object covers: n c.

    mask: bool n H W; None weighs all alike. All positions count where an image has no object.
    """
    if mask is None:
        return z.mean((2, 3))
    weight = F.adaptive_avg_pool2d(mask[:, None].float(), (z.shape[-2], z.shape[-1]))
    weight = torch.where(weight.sum((2, 3), keepdim=True) > 0, weight, torch.ones_like(weight))
    return (z * weight).sum((2, 3)) / weight.sum((2, 3))


def pooled(x: Tensor, cells: int) -> Tensor:
    """Features n c (2 + cells^2) of n c h w: mean and standard deviation over positions, and the means of cells x cells
    parts."""
    return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0), F.adaptive_avg_pool2d(x, cells).flatten(1)], dim=1)


def probe(features: Array, labels: Sequence[str], seed: int = 0) -> Array:
    """By image, 1 where a logistic regression trained on other images predicts its label, else 0: n.

    features: n d, standardized within each training part. The cross-validation is stratified and has FOLDS folds;
    every label needs FOLDS images at least.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    names = np.asarray(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a nearly converged probe is good enough
        guessed = cross_val_predict(model, features, names, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed))
    return np.asarray(guessed == names, dtype=np.float64)
