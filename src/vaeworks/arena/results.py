"""Results of an arena: figures with intervals, verdicts, and whether its own checks passed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .. import __version__
from ..config import ARENA_VERSION, ArenaConfig
from ..intervals import Interval
from .control import PositiveControl, positive_control
from .entries import CHECKS, Entrant, steady
from .probe_run import Result
from .runner import Floor, Held
from .verdict import BaselineComparison, Figures, compare, interval_of, mean_curve, seed_noise, speedup

SCHEMA = 1

Distance = Literal["fd_recon", "fd_real"]

DISTANCES: dict[Distance, str] = {
    "fd_recon": "how well the generator has learned the latents: Fréchet distance of samples to the VAE's own "
    "reconstructions",
    "fd_real": "how good the pictures are in the end: Fréchet distance of samples to real images",
}
"""Distances, each with a verdict of its own. The checks use the first."""

Results = Mapping[str, Mapping[str, Sequence[Result]]]
"""By entrant and generator, one for each seed."""

MEMORIZED = 20
"""Passes over the images above which a generator may memorize them."""


@dataclass(frozen=True)
class EntrantRow:
    """The results of one entrant."""

    entrant: Entrant
    floor: Floor
    """score of its first space's reconstructions"""
    figures: Mapping[str, Mapping[str, Interval]]
    """distance -> generator -> geometric mean over seeds"""
    recognized: Mapping[str, float | None]
    """by generator: share of samples that the classifier assigns to the requested class"""
    shift: str
    """its best timestep shift"""
    tried: Mapping[str, float]
    """by shift: distance to reconstructions in the pilot run, the smaller generator's first seed"""
    speedup: Mapping[str, float]
    """by generator: the baseline's training images over those that this row needs for the same final distance to
    reconstructions"""
    comparisons: Mapping[str, BaselineComparison]
    """by distance; () for the baseline"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an arena."""

    config: ArenaConfig
    baseline: str
    rows: tuple[EntrantRow, ...]
    results: Results
    failures: tuple[str, ...]
    """sentences on checks that failed; with any, there is no verdict"""
    notes: tuple[str, ...]
    controls: Mapping[Distance, PositiveControl]
    """the positive control by each distance"""
    protocol: str
    features: str
    images: int
    size: int
    classes: int
    source: str

    @property
    def conclusive(self) -> bool:
        """Whether the arena's own checks passed."""
        return not self.failures

    def row(self, name: str) -> EntrantRow:
        """The row of an entrant."""
        return next(row for row in self.rows if row.entrant.name == name)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what arena.json holds."""
        return {
            "schema": SCHEMA,
            "vaeworks": __version__,
            "protocol_version": ARENA_VERSION,
            "protocol": self.protocol,
            "config": asdict(self.config),
            "data": {"source": self.source, "images": self.images, "size": self.size, "classes": self.classes},
            "features": self.features,
            "baseline": self.baseline,
            "conclusive": self.conclusive,
            "failures": list(self.failures),
            "notes": list(self.notes),
            "positive_control": {d: control.to_dict() for d, control in self.controls.items()},
            "rows": [_row_dict(row, self.results[row.entrant.name]) for row in self.rows],
        }


def _row_dict(row: EntrantRow, results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    return {
        "name": row.entrant.name,
        "check": row.entrant.check,
        "spaces": [asdict(spec) for spec in row.entrant.spaces],
        "latents": list(row.floor.shape),
        "floor": row.floor.fd_real,
        "figures": {d: {p: asdict(i) for p, i in by.items()} for d, by in row.figures.items()},
        "recognized": dict(row.recognized),
        "shift": row.shift,
        "shifts_tried": dict(row.tried),
        "speedup": dict(row.speedup),
        "comparisons": {d: asdict(c) for d, c in row.comparisons.items()},
        "trials": {p: [r.to_dict() for r in by] for p, by in results.items()},
    }


def conclude(
    entrants: Sequence[Entrant],
    held: Held,
    floors: Mapping[str, Floor],
    config: ArenaConfig,
    baseline: str,
    *,
    protocol: str,
    features: str,
    images: int,
    size: int,
    classes: int,
    source: str,
) -> Outcome:
    """Figures and verdicts of an arena whose trials have all ended."""
    names, results = [e.name for e in entrants], held.results
    figures, still = {d: _figures(names, results, d, config.probes) for d in DISTANCES}, steady(entrants)
    compared = {
        d: {n: compare(figures[d], n, baseline, config.probes, still) for n in names if n != baseline}
        for d in DISTANCES
    }
    failures = _failures(entrants, compared["fd_recon"])
    if failures:
        compared = {d: {n: _withheld(c) for n, c in by.items()} for d, by in compared.items()}
    curves = {n: {p: mean_curve([_curve(r) for r in results[n][p]]) for p in config.probes} for n in names}
    rows = tuple(
        EntrantRow(
            e,
            floors[e.name],
            {
                d: {p: interval_of(figures[d][e.name][p], seed_noise(figures[d], p, still)) for p in config.probes}
                for d in DISTANCES
            },
            {p: _recognized(results[e.name][p]) for p in config.probes},
            results[e.name][config.probes[0]][0].trial.shift,
            {shift: tried.last.fd_recon for shift, tried in held.tried[e.name].items()},
            {p: speedup(curves[e.name][p], curves[baseline][p]) for p in config.probes},
            {d: compared[d][e.name] for d in DISTANCES if e.name != baseline},
        )
        for e in entrants
    )
    controls = {d: _control(entrants, floors, figures[d], config) for d in DISTANCES}
    notes = _notes(config, images)
    return Outcome(
        config, baseline, rows, results, failures, notes, controls, protocol, features, images, size, classes, source
    )


def _control(
    entrants: Sequence[Entrant], floors: Mapping[str, Floor], figures: Figures, config: ArenaConfig
) -> PositiveControl:
    pixels = next((e.name for e in entrants if e.check == "pixels"), None)
    numbers = math.prod(floors[pixels].shape) // config.tokens if pixels else 0
    autoencoders = [e.name for e in entrants if e.check is None]
    return positive_control(figures, pixels, autoencoders, config.probes, steady(entrants), numbers)


def _figures(names: Sequence[str], results: Results, distance: Distance, probes: Sequence[str]) -> Figures:
    return {n: {p: [getattr(r.last, distance) for r in results[n][p]] for p in probes} for n in names}


def _curve(result: Result) -> list[tuple[float, float]]:
    return [(look.images, look.score.fd_recon) for look in result.looks]


def _recognized(results: Sequence[Result]) -> float | None:
    found = [r.last.recognized for r in results if r.last.recognized is not None]
    return math.fsum(found) / len(found) if found else None


def _failures(entrants: Sequence[Entrant], compared: Mapping[str, BaselineComparison]) -> tuple[str, ...]:
    """Checks that failed or are missing, as sentences."""
    rows = {e.check: e for e in entrants if e.check is not None}
    said = []
    if missing := [name for name in CHECKS if name not in rows]:
        said.append(f"the checks {', '.join(missing)} were left out, without which nothing is concluded")
    wrong: dict[tuple[str, str], list[str]] = {}  # a common reason is said once
    for check, entrant in rows.items():
        found, (_, expected) = compared[entrant.name], CHECKS[check]
        if found.verdict != expected:
            wrong.setdefault((found.verdict, found.why), []).append(f"{entrant.name} must come out {expected}")
    for (verdict, why), names in wrong.items():
        said.append(f"{', '.join(names)} and {'is' if len(names) == 1 else 'all are'} {verdict} ({why})")
    return tuple(said)


def _withheld(comparison: BaselineComparison) -> BaselineComparison:
    return BaselineComparison(comparison.row, comparison.ratios, "undecided", "the arena's own checks have failed")


def _notes(config: ArenaConfig, images: int) -> tuple[str, ...]:
    said = []
    if config.images > MEMORIZED * images:
        said.append(
            f"each generator saw every one of the {images:,} images {config.images / images:.0f} times, and may have "
            "learned them by heart; take more images or a smaller budget"
        )
    return tuple(said)
