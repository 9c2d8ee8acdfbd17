"""Pages and records of arenas and studies: report.html, arena.json, study.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import dumps
from ..files.atomic import write_text
from ..images import open_image
from ..intervals import Interval
from ..pages import chart, data_uri, write_page
from ..pages.scatter import Point, scatter
from ..words import many
from .control import MEANING
from .entries import CHECKS
from .probe_run import SAMPLES
from .results import DISTANCES, Distance, EntrantRow, Outcome
from .study.run import StudyResult
from .verdict import mean_curve

REPORT, RECORD, STUDY_RECORD = "report.html", "arena.json", "study.json"

TITLES: dict[Distance, str] = {
    "fd_recon": "How well the latents are learned",
    "fd_real": "How good the pictures are in the end",
}


def write_outcome(folder: Path, outcome: Outcome, overwrite: bool = True) -> None:
    """Write an arena's page and record."""
    write_text(folder / RECORD, dumps(outcome.to_dict()) + "\n", overwrite)
    heading = "Which latent space does a diffusion model learn best?"
    write_page(folder / REPORT, "arena.html", _values(outcome, heading, RECORD, seconds(outcome)), overwrite)


def write_study(folder: Path, result: StudyResult) -> None:
    """Write a study's page and record."""
    write_text(folder / STUDY_RECORD, dumps(result.to_dict()) + "\n")
    values = _values(result.outcome, result.question, STUDY_RECORD, result.seconds)
    values |= {
        "scatters": [s for s in (plot(result, d) for d in DISTANCES) if s],
        "arms": len(result.arms),
        "correlations": [asdict(c) for c in result.correlations],
    }
    write_page(folder / REPORT, "arena.html", values)


def plot(result: StudyResult, distance: Distance) -> str:
    """Reconstruction against diffusability of a study's autoencoders, with the larger generator: an SVG."""
    probe = result.outcome.config.probes[-1]
    points = {}
    for name, arms in result.arms.items():
        x = [arm.psnr for arm in arms]
        y = result.outcome.row(name).figures[distance][probe]
        points[name] = Point(
            math.fsum(x) / len(x),
            y.value,
            (min(x), max(x)) if len(x) > 1 else None,
            (y.low, y.high),
            name == result.outcome.baseline,
        )
    title = f"{TITLES[distance]} (generator {probe}; down is better) against reconstruction (right is better)"
    return scatter(title, points, "PSNR of reconstructions, dB", "Fréchet distance", log=True)


def seconds(outcome: Outcome) -> float:
    """Seconds of training and scoring all generators, summed over processes, as measured then."""
    return math.fsum(r.seconds for by in outcome.results.values() for rs in by.values() for r in rs)


def sheets(outcome: Outcome) -> dict[str, Path]:
    """Existing sample sheets of every row's larger generator, first seed."""
    probe = outcome.config.probes[-1]
    places = {name: by[probe][0].folder / SAMPLES for name, by in outcome.results.items()}
    return {name: path for name, path in places.items() if path.exists()}


def _values(outcome: Outcome, heading: str, record: str, cost: float) -> dict[str, Any]:
    config = outcome.config
    return {
        "version": __version__,
        "title": outcome.baseline,
        "heading": heading,
        "images": outcome.images,
        "size": outcome.size,
        "classes": outcome.classes,
        "source": outcome.source,
        "probes": config.probes,
        "budget": config.images,
        "seeds": many(len(config.seeds), "seed"),
        "baseline": outcome.baseline,
        "failures": outcome.failures,
        "notes": outcome.notes,
        "control": MEANING,
        "controls": [(TITLES[d], c.sentences, c.passed) for d, c in outcome.controls.items()],
        "handicap": next((c.handicap for c in outcome.controls.values()), ""),
        "scatters": [],
        "correlations": [],
        "arms": 0,
        "distances": [_distance(outcome, d) for d in DISTANCES],
        "rows": [_row(outcome, row) for row in outcome.rows],
        "recognized": any(v is not None for row in outcome.rows for v in row.recognized.values()),
        "charts": [c for p in config.probes for c in _charts(outcome, p)],
        "sheets": [(name, data_uri(open_image(path))) for name, path in sheets(outcome).items()],
        "protocol": {name: _plain(value) for name, value in asdict(config).items()},
        "features": outcome.features,
        "record": record,
        "cost": f"{cost / 3600:.1f} hours of one process for all trials",
    }


def _distance(outcome: Outcome, distance: Distance) -> dict[str, Any]:
    meaning = DISTANCES[distance]
    return {
        "title": TITLES[distance],
        "meaning": meaning[0].upper() + meaning[1:],
        "reason": shared_reason(outcome, distance),
        "rows": [_compared(outcome, row, distance) for row in outcome.rows],
    }


def _compared(outcome: Outcome, row: EntrantRow, distance: Distance) -> dict[str, Any]:
    comparison = row.comparisons.get(distance)
    cells = []
    for probe in outcome.config.probes:
        value = row.figures[distance][probe]
        ratio = comparison.ratios.get(probe) if comparison else None
        cells.append(
            {
                "value": number(value.value),
                "interval": between(value),
                "ratio": "" if ratio is None else f"{ratio.value:.2f}",
                "ratio_interval": "" if ratio is None else between(ratio),
            }
        )
    return {
        "name": row.entrant.name,
        "check": row.entrant.check,
        "what": CHECKS[row.entrant.check][0] if row.entrant.check else "",
        "latents": " × ".join(map(str, row.floor.shape)),
        "cells": cells,
        "verdict": comparison.verdict if comparison else "baseline",
        "why": comparison.why if comparison and not shared_reason(outcome, distance) else "",
    }


def shared_reason(outcome: Outcome, distance: Distance) -> str:
    """The reason for every verdict by a distance, where there is one for several rows; it is said once."""
    reasons = [row.comparisons[distance].why for row in outcome.rows if distance in row.comparisons]
    return reasons[0] if len(reasons) > 1 and len(set(reasons)) == 1 else ""


def _plain(value: Any) -> str:
    """A setting as text: several values with commas."""
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)


def _row(outcome: Outcome, row: EntrantRow) -> dict[str, Any]:
    first = outcome.config.looks[-1] / outcome.config.looks[0]
    return {
        "name": row.entrant.name,
        "check": row.entrant.check,
        "speedups": [times(row.speedup[p], first) for p in outcome.config.probes],
        "shift": row.shift,
        "tried": ", ".join(f"{shift} {number(v)}" for shift, v in row.tried.items()) if len(row.tried) > 1 else "",
        "floor": number(row.floor.fd_real),
        "recognized": ["–" if (v := row.recognized[p]) is None else f"{v:.0%}" for p in outcome.config.probes],
    }


def times(speedup: float, most: float) -> str:
    """A speed-up as text, with its bounds."""
    if speedup >= most * 0.999:
        return f"> {most:.0f} ×"
    if speedup <= 1.001 / most:
        return f"< {1 / most:.2g} ×"
    return f"{speedup:.2f} ×"


def number(value: float) -> str:
    """A number with three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "–"


def between(interval: Interval) -> str:
    """The ends of an interval, if it has any."""
    if math.isnan(interval.low):
        return ""
    return f"{number(interval.low)} to {'∞' if math.isinf(interval.high) else number(interval.high)}"


def _charts(outcome: Outcome, probe: str) -> Sequence[str]:
    lines = {
        row.entrant.name: mean_curve(
            [[(look.images, look.score.fd_recon) for look in r.looks] for r in outcome.results[row.entrant.name][probe]]
        )
        for row in outcome.rows
    }
    drawn = chart(
        f"Distance to reconstructions, generator {probe}", lines, log=True, x_label="training images", newest=False
    )
    return [drawn] if drawn else []
