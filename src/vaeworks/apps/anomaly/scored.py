"""The results on test images: scores as a table, sheets of images with heat maps, figures of every method and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.table import table
from ...files.atomic import write_picture, write_text
from ...intervals import Interval
from ...reporting import Reporter
from .auroc import auroc, shares
from .detector import AnomalyDetector, Readings
from .folders import GOOD
from .heat import sheet
from .methods import MethodRow, Truth, baseline_rows, own_rows
from .threshold import p_values

SCORES = "scores.csv"
SHEETS = {
    "worst.jpg": "the most anomalous images",
    "most-normal.jpg": "the most normal images",
    "misses.jpg": "anomalous images that were not found",
    "false-alarms.jpg": "normal images that were called anomalous",
}
"""Files and what they show."""
SHOWN = 12
"""Images on a sheet."""


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Test images with a detector's readings."""

    names: Sequence[str]
    pixels: NDArray[np.uint8]
    """n c h w"""
    classes: Sequence[str] | None
    """None where they are not known"""
    truth: Truth | None
    readings: Readings
    alarms: NDArray[np.bool_]
    """n: which images the detector calls anomalous"""

    @property
    def order(self) -> list[int]:
        """Rows, the most anomalous first."""
        return (-self.readings.anomaly).argsort(kind="stable").tolist()


@dataclass(frozen=True)
class ClassFigures:
    """The images of one class."""

    images: int
    alarms: Interval
    """the share that the detector calls anomalous"""
    auroc: Interval | None
    """against the normal images; None for the normal images themselves, and where there are none"""


def method_rows(
    detector: AnomalyDetector, scored: ScoredImages, normals: NDArray[np.uint8] | None, seed: int, reporter: Reporter
) -> list[MethodRow]:
    """Figures of the detector, each kind of its evidence and, where `normals` n c h w are given, the baselines."""
    assert scored.truth is not None
    rows = list(own_rows(detector, scored.readings, scored.truth, seed))
    if normals is not None:
        track = partial(reporter.track, what="baselines")
        rows += baseline_rows(detector, normals, scored.pixels, scored.truth, seed, track)
    return rows


def class_figures(scored: ScoredImages, seed: int) -> dict[str, ClassFigures]:
    """For every class, the share of alarms and the AUROC against the normal images."""
    assert scored.classes is not None
    labels, anomaly = np.array(scored.classes), scored.readings.anomaly
    normal = anomaly[labels == GOOD]
    figures = {}
    for label in sorted(set(scored.classes)):
        mine = labels == label
        against = auroc(normal, anomaly[mine], seed) if label != GOOD and len(normal) else None
        figures[label] = ClassFigures(int(mine.sum()), shares(scored.alarms[mine]), against)
    return figures


def write_scores(path: Path, detector: AnomalyDetector, scored: ScoredImages, overwrite: bool) -> None:
    """Write a CSV file with a row per image, the most anomalous first."""
    readings = scored.readings
    rows: list[Sequence[object]] = [["image", "class", "alarm", "anomaly", "p_value", *readings.scores]]
    chances = p_values(readings.anomaly, detector.calibration_anomaly_)
    for i in scored.order:
        values = (readings.anomaly[i], chances[i], *(scores[i] for scores in readings.scores.values()))
        label = scored.classes[i] if scored.classes else ""
        rows.append([scored.names[i], label, int(scored.alarms[i]), *(f"{v:.4f}" for v in values)])
    write_text(path, table(rows), overwrite)


def write_sheets(out: Path, detector: AnomalyDetector, scored: ScoredImages, overwrite: bool) -> list[str]:
    """Write sheets of images beside their heat maps: the most anomalous, the most normal, misses, false alarms.

    Returns their paths. A sheet without images is not written, and with `overwrite` an earlier one is removed.
    """
    truth, order = scored.truth, scored.order
    chosen = [order, order[::-1]]
    if truth is not None:
        chosen += [
            [i for i in order[::-1] if truth.anomalous[i] and not scored.alarms[i]],
            [i for i in order if scored.alarms[i] and not truth.anomalous[i]],
        ]
    written = []
    for (name, title), rows in zip(SHEETS.items(), chosen, strict=False):
        rows = rows[:SHOWN]
        if len(rows):
            masks = [None if truth is None or truth.masks is None else truth.masks[i] for i in rows]
            pixels, heats = [scored.pixels[i] for i in rows], [scored.readings.heat[i] for i in rows]
            names = [f"{Path(scored.names[i]).name}: {scored.readings.anomaly[i]:.2f}" for i in rows]
            title = f"{title}; anomaly beside the name, the threshold is {-detector.offset_:.2f}"
            picture = sheet(pixels, heats, masks, detector.normal_heat_, names, title)
            write_picture(out / name, picture, overwrite)
            written.append(str(out / name))
        elif overwrite:  # an earlier call's sheet shows other images
            (out / name).unlink(missing_ok=True)
    return written
