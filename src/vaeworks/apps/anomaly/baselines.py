"""Baselines of anomaly detection: methods without an autoencoder, or with its encoder alone, on the same images.

Each is a function that is fitted on images and returns a function from images to distances: maps n h w, or n numbers.
Maps become numbers as evidence does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes import Track
from .evidence import enlarged, smoothed
from .extractors import PcaExtractor, VaeExtractor, batches

Array = NDArray[Any]
Reader = Callable[[Array], Array]

THUMBNAIL = 32
"""Side in pixels of the images that nearest neighbours are searched in."""

NEIGHBOURS = 5
"""Number of nearest images; their mean distance is the score."""

BANK = 10_000
"""Patches of normal images that are kept. They are drawn at random; PatchCore chooses them evenly spread."""


def mean_image(images: Array) -> Reader:
    """Difference from the mean of the normal images."""
    mean = images.astype(np.float32).mean(0) / 127.5
    return lambda found: smoothed(np.square(found / np.float32(127.5) - mean).mean(1))


def principal_components(images: Array) -> Reader:
    """Difference from a reconstruction by principal components that keep 90 % of the variance."""
    extractor = PcaExtractor.fitted(images.astype(np.float32) / 127.5)
    return lambda found: smoothed(extractor.views(found.astype(np.float32) / 127.5).error)


def nearest_images(images: Array) -> Reader:
    """Distance to the nearest normal images, shrunk to THUMBNAIL pixels: n."""
    from sklearn.neighbors import NearestNeighbors

    known = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(images))).fit(_thumbnails(images))
    return lambda found: known.kneighbors(_thumbnails(found))[0].mean(1)


def nearest_patches(images: Array, of: Callable[[Array], Array], factor: int, seed: int, track: Track = iter) -> Reader:
    """Distance of every position's vector to the nearest vector of normal images, at any position.

    of: images to vectors n d h/factor w/factor. Source: PatchCore, Roth et al. 2021 (arXiv 2106.08265).
    """
    from sklearn.neighbors import NearestNeighbors

    rows = np.concatenate([_rows(of(part)) for part in batches(images, track)])
    scale = rows.std(0) + 1e-6  # channels of a VAE differ in size
    chosen = np.random.default_rng(seed).permutation(len(rows))[:BANK]
    known = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows[chosen] / scale)

    def read(found: Array) -> Array:
        vectors = of(found)
        distances = known.kneighbors(_rows(vectors) / scale)[0].reshape(len(found), *vectors.shape[-2:])
        return enlarged(distances, found.shape[-2], found.shape[-1], factor)

    return read


def baselines(extractor: VaeExtractor, seed: int, track: Track = iter) -> dict[str, Callable[[Array], Reader]]:
    """All baselines, by their names in tables."""
    f = extractor.autoencoder.downsample_factor
    return {
        "mean image": mean_image,
        "PCA reconstruction": principal_components,
        f"nearest images, {THUMBNAIL} px": nearest_images,
        "nearest latents": lambda images: nearest_patches(images, extractor.latents, f, seed, track),
        "nearest features": lambda images: nearest_patches(images, extractor.patches, f, seed, track),
    }


def _rows(vectors: Array) -> Array:
    return vectors.transpose(0, 2, 3, 1).reshape(-1, vectors.shape[1])


def _thumbnails(images: Array) -> Array:
    import torch
    import torch.nn.functional as F

    height, width = (min(THUMBNAIL, side) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(torch.from_numpy(images).float(), (height, width)).flatten(1).numpy()
