"""Verdicts on latent spaces from noisy figures: a rank only where the intervals support it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import t as student

from ..intervals import Interval

TIE = 1.25
"""Two distances tie if the whole interval of their ratio is within this factor of 1."""

CONFIDENCE = 0.95

SMALLEST = 1e-12
"""Replaces a distance of 0, which rounding can produce."""

Verdict = Literal["better", "worse", "tie", "undecided"]

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""row -> generator -> a distance for every seed"""


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation of the logarithm of a distance from seed to seed, pooled over rows of one generator."""

    std: float
    freedom: int
    """degrees of freedom"""


@dataclass(frozen=True)
class BaselineComparison:
    """A row compared with the baseline."""

    row: str
    ratios: Mapping[str, Interval]
    """by generator: the row's distance over the baseline's, geometric means over seeds; below 1 is better"""
    verdict: Verdict
    why: str
    """in a few words"""


def seed_noise(figures: Figures, probe: str, steady: Collection[str] = ()) -> SeedNoise | None:
    """The spread of a distance over seeds, pooled over the rows of autoencoders; None where none has two seeds.

    It is pooled because two seeds alone determine little. This assumes that the relative noise is the same in all of
    these rows. Rows of scrambled latents and of pixels vary far less: with them, intervals would be too narrow.
    steady: names of such rows.
    """
    squares, freedom = 0.0, 0
    for name, row in figures.items():
        if name in steady:
            continue
        logs = _logs(row.get(probe, ()))
        if len(logs) > 1:
            mean = math.fsum(logs) / len(logs)
            squares += math.fsum((y - mean) ** 2 for y in logs)
            freedom += len(logs) - 1
    return SeedNoise(math.sqrt(squares / freedom), freedom) if freedom else None


def compare(
    figures: Figures, row: str, baseline: str, probes: Sequence[str], steady: Collection[str] = ()
) -> BaselineComparison:
    """The verdict on a row: "better" or "worse" only where the interval of every generator is on that side of 1.

    "tie": every interval is within a factor `TIE` of 1. "undecided": fewer than two generators or two seeds, intervals
    that are too wide, or generators that disagree. steady: as in `seed_noise`.
    """
    ratios: dict[str, Interval] = {}
    for probe in probes:
        a, b = _logs(figures[row].get(probe, ())), _logs(figures[baseline].get(probe, ()))
        if not a or not b or len(a) < len(figures[row][probe]) or len(b) < len(figures[baseline][probe]):
            return BaselineComparison(row, ratios, "undecided", f"a generator {probe} has no finite distance")
        ratios[probe] = _ratio(a, b, seed_noise(figures, probe, steady))
    return BaselineComparison(row, ratios, *_judged(figures, row, baseline, ratios))


def _judged(figures: Figures, row: str, baseline: str, ratios: Mapping[str, Interval]) -> tuple[Verdict, str]:
    if len(ratios) < 2:
        return "undecided", "one generator alone decides nothing; take two sizes"
    fewest = min(len(figures[name][probe]) for name in (row, baseline) for probe in ratios)
    if fewest < 2:
        return "undecided", "one seed alone decides nothing; take two"
    intervals = list(ratios.values())
    if all(i.high < 1 for i in intervals):
        return "better", "with every generator"
    if all(i.low > 1 for i in intervals):
        return "worse", "with every generator"
    if all(i.low >= 1 / TIE and i.high <= TIE for i in intervals):
        return "tie", f"within a factor of {TIE:g} with every generator"
    sides = {-1 if i.high < 1 else 1 if i.low > 1 else 0 for i in intervals}
    if {-1, 1} <= sides:
        return "undecided", "the generators contradict each other"
    if len(sides) > 1:
        return "undecided", "only one of the generators shows a difference"
    return "undecided", "intervals are too wide; more seeds or more training would narrow them"


def _ratio(a: Sequence[float], b: Sequence[float], noise: SeedNoise | None) -> Interval:
    difference = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    if noise is None:
        return Interval(math.exp(difference), 0.0, math.inf)
    width = _half_width(noise, len(a), len(b))
    return Interval(*(_exp(difference + side * width) for side in (0, -1, 1)))


def _half_width(noise: SeedNoise, a: int, b: int) -> float:
    """Half of the interval of the logarithm of a ratio of two rows with so many seeds."""
    return float(student.ppf(0.5 + CONFIDENCE / 2, noise.freedom)) * noise.std * math.sqrt(1 / a + 1 / b)


def smallest_ratio(noise: SeedNoise | None, seeds: int) -> float:
    """The ratio of two rows' distances, with so many seeds each, from which its interval is above 1; inf without
    noise."""
    return _exp(_half_width(noise, seeds, seeds)) if noise is not None and seeds else math.inf


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def interval_of(values: Sequence[float], noise: SeedNoise | None) -> Interval:
    """Geometric mean of a row's distances over seeds, with the interval from the pooled noise."""
    logs = _logs(values)
    if not logs:
        return Interval(math.nan, math.nan, math.nan)
    mean = math.fsum(logs) / len(logs)
    if noise is None:
        return Interval(math.exp(mean), math.nan, math.nan)
    width = float(student.ppf(0.5 + CONFIDENCE / 2, noise.freedom)) * noise.std / math.sqrt(len(logs))
    return Interval(*(_exp(mean + side * width) for side in (0, -1, 1)))


def _logs(values: Sequence[float]) -> list[float]:
    return [math.log(v) for v in values if math.isfinite(v) and v > 0]


Curve = Sequence[tuple[float, float]]
"""(images, distance) in the order of training."""


def images_to_reach(curve: Curve, target: float) -> float:
    """Training images after which a distance first falls to `target`, interpolated in both logarithms; inf if never.

    If it is there at the first snapshot: that snapshot's images, an upper bound.
    """
    if curve and curve[0][1] <= target:
        return curve[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if y0 > target >= y1:
            share = (math.log(y0) - math.log(target)) / (math.log(y0) - math.log(y1))
            return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
    return math.inf


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Geometric mean over seeds of the distance at every snapshot."""
    return [
        (points[0][0], math.exp(math.fsum(math.log(max(y, SMALLEST)) for _, y in points) / len(points)))
        for points in zip(*curves, strict=True)
    ]


def speedup(row: Curve, baseline: Curve) -> float:
    """The baseline's training images over those that a row needs to reach the baseline's final distance.

    Below 1: the share of its training after which the baseline has reached the row's final distance. The value is
    bounded by the ratio of the last snapshot to the first.
    """
    end = baseline[-1][0]
    if row[-1][1] <= baseline[-1][1]:
        return end / images_to_reach(row, baseline[-1][1])
    return images_to_reach(baseline, row[-1][1]) / end
