"""Latents as features of images: a transformer with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ...errors import ConfigError, DataError
from ...models import Autoencoder
from ...models.digest import SAME_PRECISION, model_digest
from ..anomaly.extractors import PcaExtractor, VaeExtractor, batches
from ..anomaly.layouts import validated
from ..codes import Track

Array = NDArray[Any]

Pool = Literal["none", "mean", "mean-std", "pyramid"]
"""How latents n c h w become rows: as they are, means over positions, means and standard deviations, means over
grids."""

GRIDS = 1, 2, 4
"""Cells along a side in each level of the pyramid, without levels that are finer than the latents. Source: Lazebnik et
al. 2006."""


class LatentFeatures(TransformerMixin, BaseEstimator):
    """Transform images to the means of their posteriors, as rows. The transformer has scikit-learn's interface, and
    needs no labels.

    X: images uint8 n h w c, n c h w or n h w; or rows n d, which `image_shape` unfolds. Without an autoencoder, rows
    may be of any table.

    autoencoder: a VAE, or a name for `load`; None: principal components of the fitted images that keep 90 % of their
    variance. `clone` copies a VAE with its weights; a name costs nothing, so use one for searches and several
    processes.
    pool: "none", latents as they are, c h w; "mean" over positions, c; "mean-std", 2 c; "pyramid", means over 1, 4 and
    16 cells, 21 c.
    standardize: scale each latent channel to mean 0 and standard deviation 1 over the fitted images and all positions.
    image_shape: of rows: (h, w), (h, w, c) or (c, h, w).
    track: wraps batches, to show progress.

    Fitted: image_shape_ (c h w), latent_shape_ (c h w), mean_ and scale_ (c, with standardize), digest_ (of a VAE given
    by name).
    """

    def __init__(
        self,
        autoencoder: Autoencoder | str | Path | None = None,
        *,
        pool: Pool = "none",
        standardize: bool = False,
        image_shape: Sequence[int] | None = None,
        track: Track | None = None,
    ):
        self.autoencoder = autoencoder
        self.pool = pool
        self.standardize = standardize
        self.image_shape = image_shape
        self.track = track

    def fit(self, X: ArrayLike, y: object = None) -> LatentFeatures:  # noqa: N803
        """Check the settings, and fit the scales and the principal components. y is ignored.

        Errors: ConfigError for a setting or a shape; DataError for pixels beyond 0..255, or images without a difference
        to find components in.
        """
        if self.pool not in get_args(Pool):
            raise ConfigError(f"pool (={self.pool!r}) must be one of {', '.join(get_args(Pool))}")
        autoencoder = self._network()
        images = self._images(X, autoencoder, reset=True)
        if autoencoder is not None:
            self.extractor_: VaeExtractor | PcaExtractor = VaeExtractor(autoencoder)
            self.digest_ = model_digest(autoencoder)
        elif (images == images[0]).all():
            raise DataError(
                f"principal components need images that differ; X has {len(images)} sample(s), without a difference"
            )
        else:
            self.extractor_ = PcaExtractor.fitted(images)
        self.image_shape_ = images.shape[1:]
        self.latent_shape_ = self.extractor_.latents(images[:1]).shape[1:]
        if self.standardize:
            self.mean_, self.scale_ = _moments(
                self.extractor_.latents(part) for part in batches(images, self.track or iter)
            )
        return self

    def transform(self, X: ArrayLike) -> Array:  # noqa: N803
        """Features n d: float32 for a VAE, float64 for principal components. Errors: ConfigError for images of another
        shape."""
        check_is_fitted(self)
        extractor = self._extractor()
        images = self._images(X, extractor.autoencoder if isinstance(extractor, VaeExtractor) else None, reset=False)
        if images.shape[1:] != self.image_shape_:
            raise ConfigError(
                f"images are c h w = {images.shape[1:]}, the features were fitted on {self.image_shape_}; resize them"
            )
        return np.concatenate([self._rows(extractor.latents(part)) for part in batches(images, self.track or iter)])

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """A name for every feature: z3_0_7 is channel 3 at row 0, column 7; mean3, std3; mean3_2x2_0_1 in a pyramid."""
        check_is_fitted(self)
        return np.array(feature_names(self.latent_shape_, self.pool), dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        """The state without a network that was given by its name: it is loaded again."""
        state = dict(super().__getstate__())
        if isinstance(self.autoencoder, (str, Path)):
            state.pop("extractor_", None)
        return state

    def _network(self) -> Autoencoder | None:
        from ...devices import resolve_device
        from ...formats import load

        if isinstance(self.autoencoder, (str, Path)):
            return load(self.autoencoder).float().to(resolve_device("auto"))
        return self.autoencoder

    def _extractor(self) -> VaeExtractor | PcaExtractor:
        """The fitted extractor. Errors: ConfigError where the name now stands for another model."""
        if not hasattr(self, "extractor_"):
            network = self._network()
            assert network is not None
            if model_digest(network) != self.digest_:
                raise ConfigError(
                    f"{self.autoencoder} is another model than the features were fitted with; give that one "
                    f"{SAME_PRECISION}, or fit again"
                )
            self.extractor_ = VaeExtractor(network)
        return self.extractor_

    def _images(self, X: ArrayLike, autoencoder: Autoencoder | None, reset: bool) -> Array:  # noqa: N803
        channels = None if autoencoder is None else autoencoder.config.in_channels
        return validated(self, X, self.image_shape, channels, reset)

    def _rows(self, latents: Array) -> Array:
        if self.standardize:
            latents = (latents - self.mean_[:, None, None]) / self.scale_[:, None, None]
        return pooled(latents, self.pool)


def pooled(latents: Array, pool: Pool) -> Array:
    """Rows n d of latents n c h w."""
    import torch
    import torch.nn.functional as F

    if pool == "none":
        return latents.reshape(len(latents), -1)
    if pool == "mean":
        return latents.mean((2, 3))
    if pool == "mean-std":
        return np.concatenate([latents.mean((2, 3)), latents.std((2, 3))], 1)
    x = torch.from_numpy(np.ascontiguousarray(latents))
    return torch.cat([F.adaptive_avg_pool2d(x, g).flatten(1) for g in _grids(latents.shape[1:])], 1).numpy()


def feature_names(shape: Sequence[int], pool: Pool) -> list[str]:
    """Names of the columns that `pooled` makes of latents c h w = `shape`."""
    channels, height, width = shape
    if pool == "none":
        return [f"z{c}_{y}_{x}" for c in range(channels) for y in range(height) for x in range(width)]
    if pool == "pyramid":
        return [
            f"mean{c}_{g}x{g}_{y}_{x}"
            for g in _grids(shape)
            for c in range(channels)
            for y in range(g)
            for x in range(g)
        ]
    return [f"{what}{c}" for what in pool.split("-") for c in range(channels)]


def _grids(shape: Sequence[int]) -> list[int]:
    return [g for g in GRIDS if g <= min(shape[-2:])]


def _moments(parts: Iterable[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel: c each; 1 for constant channels. One part is in memory at a
    time."""
    found = [
        (part[:, 0].size, part.mean((0, 2, 3), dtype=np.float64), part.var((0, 2, 3), dtype=np.float64), part.dtype)
        for part in parts
    ]
    counts, means, variances = (np.array(values) for values in list(zip(*found, strict=True))[:3])
    mean = np.average(means, axis=0, weights=counts)
    std = np.sqrt(np.average(variances + np.square(means - mean), axis=0, weights=counts))
    dtype = found[0][-1]
    still = std <= np.finfo(dtype).eps * np.abs(mean)
    return mean.astype(dtype), np.where(still, 1, std).astype(dtype)
