"""Scores of generated images: distances to real images in a stated feature space."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.square_images import SquareImages
from ..data.subsets import some
from ..errors import ConfigError, DataError
from ..features.classifier import BATCH, NOISE, Classifier, trained
from ..features.classifier import VERSION as CLASSIFIER_VERSION
from ..files.arrays import read_array
from ..files.atomic import atomic
from ..images import to_model_range
from ..metrics.feature_spaces import Features, load_features, weights_digest
from ..metrics.frechet import FeatureMoments, moments, moments_distance
from ..metrics.kernel import published_estimate
from ..reporting import Progress

SELF = "classifier"
"""Features of a classifier trained on the same images."""

PER_CLASS = 100
"""Images of a class below which a classifier trained on them learns too little."""

TIMES = 2
"""Images per dimension of the feature space below which a covariance is mostly noise."""

LEAST = 256
"""Smallest number of images for a score."""


@dataclass(frozen=True)
class SampleSetScore:
    """Scores of one set of samples."""

    fd_real: float
    """Fréchet distance to all real images"""
    fd_recon: float
    """Fréchet distance to the VAE's reconstructions: the generator's own error"""
    kd_real: float
    """kernel distance to real images: unbiased, with more noise"""
    recognized: float | None
    """share of samples that the classifier assigns to the requested class; None without a classifier"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Scorer:
    """A feature space, and the real images in it."""

    def __init__(
        self,
        pictures: SquareImages,
        space: Features | Classifier,
        name: str,
        stated: str,
        folder: Path,
        device: torch.device,
    ):
        self.pictures, self.space, self.name, self.stated, self.device = pictures, space, name, stated, device
        key = hashlib.sha256(f"{pictures.digest} {stated}".encode()).hexdigest()[:16]
        self.key = key
        self.real = kept_array(
            folder / f"real-{key}.npy", lambda: self.features(pictures.batch(part) for part in parts(pictures.count))
        )
        self.real_moments = moments(self.real)

    @property
    def dimensions(self) -> int:
        """Of the feature space."""
        return self.real.shape[1]

    def features(self, parts: Iterable[Tensor]) -> np.ndarray:
        """Features n d, float32, of uint8 images in parts n c h w."""
        return np.concatenate([self.described(part)[0] for part in parts])

    @torch.inference_mode()
    def described(self, part: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Features n d of uint8 images n c h w and, with a classifier, its classes n."""
        if isinstance(self.space, Classifier):
            features, logits = self.space(to_model_range(part).to(self.device))
            return features.float().cpu().numpy(), logits.argmax(1).cpu().numpy()
        return np.stack([self.space(image) for image in part]), None

    def score(self, features: np.ndarray, recon: FeatureMoments, recognized: float | None) -> SampleSetScore:
        """Score features n d of samples against real images, and against the moments of reconstructions."""
        found = moments(features)
        real = self.real[some(len(self.real), len(features))]
        kernel = published_estimate(real, features) if len(real) == len(features) else float("nan")
        return SampleSetScore(
            moments_distance(found, self.real_moments), moments_distance(found, recon), kernel, recognized
        )


def parts(count: int) -> list[np.ndarray]:
    """Row numbers in batches of about `BATCH`."""
    return np.array_split(np.arange(count), max(1, -(-count // BATCH)))


def kept_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array from its file; made and written if the file is missing."""
    if not path.exists():
        with atomic(path, overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, make())
    return read_array(path)


def open_scorer(
    pictures: SquareImages,
    name: str,
    weights: Path | None,
    folder: Path,
    device: torch.device,
    progress: Progress | None = None,
) -> Scorer:
    """The scorer of these images.

    name: classifier, or a name that `load_features` takes; auto: the classifier where classes are large enough. folder:
    of the trained classifier. Errors: DataError for too few images, with the number needed; those of `load_features`.
    """
    name, ready = checked_space(pictures, name, weights, device)
    space: Features | Classifier
    if ready is None:
        space, accuracy = trained(pictures, folder, device, progress)
        stated = (
            f"classifier {CLASSIFIER_VERSION} trained on these images (noise up to {NOISE}), {accuracy:.1%} right on "
            f"held-out ones, means of its last two levels, {weights_digest(space)}"
        )
    else:
        space, stated = ready, ready.stated
    judge = Scorer(pictures, space, name, stated, folder, device)
    if ready is None:
        _check_dimensions(pictures, name, judge.dimensions)
    return judge


def checked_space(
    pictures: SquareImages, name: str, weights: Path | None, device: torch.device
) -> tuple[str, Features | None]:
    """The name of the feature space in which these images can be scored, and the space; None for the classifier that
    has to be trained first.

    Errors: as `open_scorer`, without any training; the classifier's dimensions are known only after it.
    """
    if pictures.count < LEAST:
        raise DataError(
            f"{pictures.count} images of {pictures.source!r} are too few to score a generator; give at least {LEAST}"
        )
    if name == "auto":
        smallest = min(torch.bincount(pictures.labels, minlength=1).tolist())
        name = SELF if len(pictures.classes) > 1 and smallest >= PER_CLASS else "statistics"
    if name != SELF:
        space = load_features(name, weights, device)
        _check_dimensions(pictures, name, len(space(pictures.batch(np.zeros(1, np.int64))[0])))
        return name, space
    if weights is not None:
        raise ConfigError(
            f"features {SELF!r} are trained on the images themselves, so features-weights (={weights}) must not be "
            "given"
        )
    return name, None


def _check_dimensions(pictures: SquareImages, name: str, dimensions: int) -> None:
    if pictures.count < TIMES * dimensions:
        raise DataError(
            f"{pictures.count} images of {pictures.source!r} are too few for the {dimensions} dimensions of "
            f"features {name!r}; give at least {TIMES * dimensions}, or --features statistics"
        )
