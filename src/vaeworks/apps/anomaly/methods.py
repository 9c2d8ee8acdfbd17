"""Figures of the detector, of each kind of its evidence alone, and of baselines on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...intervals import Interval
from ..codes import Track
from .auroc import Localization, auroc, localization, shares
from .baselines import baselines
from .detector import AnomalyDetector, Readings
from .evidence import pooled
from .extractors import VaeExtractor, batches
from .threshold import conformal_threshold

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Truth:
    """Which test images are anomalous, and where."""

    anomalous: NDArray[np.bool_]
    """n"""
    masks: NDArray[np.bool_] | None = None
    """n h w: true where an image is anomalous; None without masks"""
    masked: NDArray[np.bool_] | None = None
    """n: whether the mask of an image is known; normal images have an empty one"""


@dataclass(frozen=True)
class MethodRow:
    """The figures of one method."""

    method: str
    auroc: Interval | None
    """of images; None where normal or anomalous images are missing"""
    false_alarms: Interval | None
    """share of normal test images above the threshold"""
    found: Interval | None
    """share of anomalous test images above it"""
    places: Localization | None
    """of pixels; None without maps, or where masks lack normal or anomalous pixels"""


def row(
    method: str, scores: Array, held_out: Array, rate: float, truth: Truth, maps: Array | None, seed: int = 0
) -> MethodRow:
    """Figures of scores n and maps n h w. The threshold is from the scores of held-out normal images."""
    alarms = scores > conformal_threshold(held_out, rate)
    normal, bad = scores[~truth.anomalous], scores[truth.anomalous]
    places = None
    if maps is not None and truth.masks is not None and truth.masked is not None:
        masks = truth.masks[truth.masked]
        places = (
            localization(maps[truth.masked], masks) if masks.any() and not masks.all() else None
        )  # a crop may leave no defect
    return MethodRow(
        method,
        auroc(normal, bad, seed) if len(normal) and len(bad) else None,
        shares(alarms[~truth.anomalous]) if len(normal) else None,
        shares(alarms[truth.anomalous]) if len(bad) else None,
        places,
    )


def own_rows(detector: AnomalyDetector, readings: Readings, truth: Truth, seed: int = 0) -> Iterator[MethodRow]:
    """Figures of the detector and, by its image scores, of each kind of evidence alone."""
    rate = detector.false_alarms_
    yield row("detector", readings.anomaly, detector.calibration_anomaly_, rate, truth, readings.heat, seed)
    if len(readings.scores) > 1:
        for name, scores in readings.scores.items():
            yield row(f"{name} alone", scores, detector.calibration_[name], rate, truth, None, seed)


def baseline_rows(
    detector: AnomalyDetector, normals: Array, test: Array, truth: Truth, seed: int = 0, track: Track = iter
) -> Iterator[MethodRow]:
    """Figures of baselines. They use the same images of `normals` n c h w for fit and threshold as the detector."""
    assert isinstance(detector.extractor_, VaeExtractor)
    for name, fit in baselines(detector.extractor_, seed).items():
        read = fit(normals[detector.split_.fit])
        held_out, _ = _read(read, normals[detector.split_.threshold])
        scores, maps = _read(read, test, track)
        yield row(name, scores, held_out, detector.false_alarms_, truth, maps, seed)


def _read(read: Any, images: Array, track: Track = iter) -> tuple[Array, Array | None]:
    """Scores, and maps if the method has any."""
    values = np.concatenate([read(part) for part in batches(images, track)])
    return (values, None) if values.ndim == 1 else (pooled(values), values)
