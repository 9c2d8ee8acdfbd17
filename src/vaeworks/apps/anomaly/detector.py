"""The detector, fitted on normal images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ...errors import ConfigError
from ...models import Autoencoder
from ...runtime.opening import Model, open_model
from ..codes import Track
from . import threshold as thresholds
from .density import Gaussian, Kind
from .evidence import EVIDENCE, Combine, EvidenceScale, combined, enlarged, pooled, raw_maps
from .extractors import Maps, PcaExtractor, VaeExtractor, batches
from .layouts import validated

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Readings:
    """Scores and heat maps of n images."""

    scores: dict[str, Array]
    """by kind of evidence, n: robust z-scores, higher being more anomalous"""
    anomaly: Array
    """n: all kinds of evidence combined"""
    heat: Array
    """n h w: the same for every pixel, standardized on pixels"""


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """An outlier detector for images with scikit-learn's interface: it is fitted on normal images, and shows where
    others differ.

    X: images uint8 n h w c, n c h w or n h w; or rows n d, which `image_shape` unfolds. Without an autoencoder, rows
    may be of any table.

    autoencoder: a VAE, or the path or hub id of one; None: principal components of the fitted images that keep 90 % of
    their variance.
    evidence: some of "reconstruction", "features" and "density" (evidence.py); None: all that are possible (principal
    components have no features).
    features: a frozen network, images n c h w in [-1,1] to maps n d h w; None: the autoencoder's encoder.
    density: "position", a Gaussian per position, for aligned objects; "shared", one for all positions.
    combine: "mean" or "max" of the kinds' robust z-scores.
    false_alarms: share of normal images that may be called anomalous; "auto": 0.05, or the smallest share for which
    there are enough normal images.
    held_out: share of the normal images that nothing is fitted on: a third of them standardizes the evidence, the
    others set the threshold.
    image_shape: of rows: (h, w), (h, w, c) or (c, h, w).
    random_state: seed of the split, which depends on the images' content. track: wraps batches, to show progress.

    Fitted: offset_ (of score_samples, as in scikit-learn), false_alarms_ (the rate in use), split_, scales_,
    calibration_ (the held-out normals' scores by kind of evidence), calibration_anomaly_ (all kinds combined).
    """

    def __init__(
        self,
        autoencoder: Model | None = None,
        *,
        evidence: Sequence[str] | None = None,
        features: Maps | None = None,
        density: Kind = "position",
        combine: Combine = "mean",
        false_alarms: float | str = "auto",
        held_out: float = 0.3,
        image_shape: Sequence[int] | None = None,
        random_state: int = 0,
        track: Track | None = None,
    ):
        self.autoencoder = autoencoder
        self.evidence = evidence
        self.features = features
        self.density = density
        self.combine = combine
        self.false_alarms = false_alarms
        self.held_out = held_out
        self.image_shape = image_shape
        self.random_state = random_state
        self.track = track

    def fit(self, X: ArrayLike, y: object = None) -> AnomalyDetector:  # noqa: N803
        """Fit the detector on normal images. y is ignored.

        Errors: ConfigError for a setting or a shape; DataError for too few images, or too few for `false_alarms`.
        """
        evidence = self._check()
        images = self._images(X, reset=True)
        self.split_ = thresholds.split(images, self.held_out, self.random_state)
        available = len(self.split_.threshold)
        if self.false_alarms == "auto":
            self.false_alarms_ = max(thresholds.DEFAULT_RATE, thresholds.smallest_rate(available))
        else:
            self.false_alarms_ = float(self.false_alarms)
            thresholds.check_rate(self.false_alarms_, available, len(images), self.held_out)
        fitted = images[self.split_.fit]
        self.evidence_ = evidence
        self.image_shape_ = images.shape[1:]
        self.extractor_ = (
            PcaExtractor.fitted(fitted) if self._model is None else VaeExtractor(self._model, self.features)
        )
        self.gaussian_ = Gaussian.fitted(self._latents(fitted), self.density) if "density" in evidence else None
        self._standardize(images[self.split_.scale])
        self._calibrate(images[self.split_.threshold])
        return self

    def score_samples(self, X: ArrayLike) -> Array:  # noqa: N803
        """Minus the combined z-score of every image: n, higher is more normal."""
        scores = [self._scores(self._raw(part)) for part in batches(self._new_images(X), self.track or iter)]
        return -combined(
            {name: np.concatenate([part[name] for part in scores]) for name in self.evidence_}, self.combine
        )

    def decision_function(self, X: ArrayLike) -> Array:  # noqa: N803
        """score_samples minus the threshold: n, negative for images that are called anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """1 for normal images, -1 for anomalous ones: n."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def heat_maps(self, X: ArrayLike) -> Array:  # noqa: N803
        """z-scores of pixels: n h w, higher is more anomalous."""
        return self.readings(X).heat

    def readings(self, X: ArrayLike) -> Readings:  # noqa: N803
        """Scores by kind of evidence, combined scores and heat maps, in one pass. Errors: ConfigError for images of
        another shape."""
        parts = [self._read(part) for part in batches(self._new_images(X), self.track or iter)]
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in self.evidence_}
        return Readings(scores, combined(scores, self.combine), np.concatenate([part.heat for part in parts]))

    @property
    def _model(self) -> Autoencoder | None:
        """The autoencoder, which is read once where a path is given. Errors: those of `vaeworks.load`."""
        given, opened = getattr(self, "_opened", (None, None))
        if given is not self.autoencoder:
            opened = None if self.autoencoder is None else open_model(self.autoencoder)
            self._opened = self.autoencoder, opened
        return opened

    def _check(self) -> tuple[str, ...]:
        """The kinds of evidence, in order. Errors: ConfigError for a setting."""
        possible = tuple(name for name in EVIDENCE if name != "features" or self.autoencoder is not None)
        evidence = possible if self.evidence is None else tuple(dict.fromkeys(self.evidence))
        for name, value, known in (
            *(("evidence", name, possible) for name in evidence),
            ("density", self.density, ("position", "shared")),
            ("combine", self.combine, ("mean", "max")),
        ):
            if value not in known:
                why = "; features need an autoencoder" if value == "features" else ""
                raise ConfigError(f"{name} (={value!r}) must be one of {', '.join(known)}{why}")
        if not evidence:
            raise ConfigError(f"no evidence is named; choose from {', '.join(possible)}")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out (={self.held_out}) must be between 0 and 1")
        return evidence

    def _images(self, X: ArrayLike, reset: bool) -> Array:  # noqa: N803
        channels = None if self._model is None else self._model.config.in_channels
        return validated(self, X, self.image_shape, channels, reset)

    def _new_images(self, X: ArrayLike) -> Array:  # noqa: N803
        """Images to score. Errors: ConfigError for another shape than the fitted images have."""
        check_is_fitted(self)
        images = self._images(X, reset=False)
        if images.shape[1:] != self.image_shape_:
            raise ConfigError(
                f"images are c h w = {images.shape[1:]}, the detector was fitted on {self.image_shape_}; resize them"
            )
        return images

    def _latents(self, images: Array) -> Array:
        return np.concatenate([self.extractor_.latents(part) for part in batches(images, self.track or iter)])

    def _raw(self, images: Array) -> dict[str, Array]:
        """Maps of distances by kind of evidence."""
        return raw_maps(self.extractor_.views(images), self.gaussian_, self.evidence_)

    def _scores(self, maps: dict[str, Array]) -> dict[str, Array]:
        return {name: self.scales_[name](pooled(values)).astype(np.float64) for name, values in maps.items()}

    def _standardize(self, images: Array) -> None:
        parts = [self._raw(part) for part in batches(images, self.track or iter)]
        self.scales_ = {
            name: EvidenceScale.of(np.concatenate([pooled(maps[name]) for maps in parts])) for name in self.evidence_
        }
        self.map_scales_ = {
            name: EvidenceScale.of(np.concatenate([maps[name] for maps in parts])) for name in self.evidence_
        }

    def _calibrate(self, images: Array) -> None:
        parts = [self._read(part) for part in batches(images, self.track or iter)]
        self.calibration_ = {name: np.concatenate([part.scores[name] for part in parts]) for name in self.evidence_}
        self.calibration_anomaly_ = combined(self.calibration_, self.combine)
        self.offset_ = -thresholds.conformal_threshold(self.calibration_anomaly_, self.false_alarms_)
        seen = np.concatenate([np.quantile(part.heat.reshape(len(part.heat), -1), 0.999, axis=1) for part in parts])
        self.normal_heat_ = float(np.median(seen))

    def _read(self, images: Array) -> Readings:
        """The readings of one batch."""
        maps = self._raw(images)
        height, width = images.shape[-2:]
        factor = 1 if self._model is None else self._model.downsample_factor
        heat = {
            name: enlarged(self.map_scales_[name](values), height, width, factor if name == "density" else 1)
            if values.shape[1:] != (height, width)
            else self.map_scales_[name](values)
            for name, values in maps.items()
        }
        scores = self._scores(maps)
        return Readings(scores, combined(scores, self.combine), combined(heat, self.combine))
