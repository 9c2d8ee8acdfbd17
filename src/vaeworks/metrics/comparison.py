"""Paired differences between models on the same images: narrower than the intervals of two separate means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..intervals import Interval, bootstrap
from .evaluation import Evaluation
from .protocol import check_alike

PAIRED = ("psnr", "ssim", "ms_ssim", "lpips")
"""Figures that are compared image by image."""

LOWER_IS_BETTER = ("lpips",)


@dataclass(frozen=True)
class Comparison:
    """The difference of one figure between a model and the first model, over the same images."""

    model: str
    against: str
    figure: str
    difference: Interval
    """this model's figure - the first model's: mean over images, with its 95 % interval"""
    wins: float
    """share of the images on which this model is better; ties count half"""

    @property
    def verdict(self) -> str:
        """better, worse, or tie where the interval holds 0; unknown where there is no interval."""
        low, high = self.difference.low, self.difference.high
        if not (np.isfinite(low) and np.isfinite(high)):
            return "unknown"
        if low <= 0 <= high:
            return "tie"
        return "better" if (low > 0) != (self.figure in LOWER_IS_BETTER) else "worse"


def compare(evaluations: Sequence[Evaluation]) -> tuple[Comparison, ...]:
    """Every model after the first against the first, in every figure that both have.

    Errors: ConfigError where protocols differ, in one line that names every field that does; or for fewer than two
    evaluations.
    """
    if len(evaluations) < 2:
        raise ConfigError(f"a comparison needs at least two evaluations, not {len(evaluations)}")
    check_alike({title: e.protocol for title, e in zip(titles(evaluations), evaluations, strict=True)})
    if odd := next((e for e in evaluations if len(e.scores) != len(evaluations[0].scores)), None):
        raise ConfigError(
            f"{odd.title} has {len(odd.scores)} images and {evaluations[0].title} {len(evaluations[0].scores)}; "
            "measure both again"
        )
    first, *others = evaluations
    names = titles(evaluations)
    return tuple(
        _compared(figure, (names[0], first.values(figure)), (name, other.values(figure)))
        for name, other in zip(names[1:], others, strict=True)
        for figure in PAIRED
        if first.values(figure) and other.values(figure)
    )


def said(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Warnings about the figures: those of all models once, the others with the model's name."""
    common = [line for line in evaluations[0].warnings if all(line in e.warnings for e in evaluations)]
    drawn = {e.legibility.pictures for e in evaluations if e.legibility}
    if len(drawn) > 1:
        common.append(f"text was drawn differently, so its figures do not compare: {'; '.join(sorted(drawn))}")
    names = zip(titles(evaluations), evaluations, strict=True)
    return (*common, *(f"{name}: {line}" for name, e in names for line in e.warnings if line not in common))


def titles(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """A title for each evaluation, all different."""
    found: list[str] = []
    for evaluation in evaluations:
        name, count = evaluation.title, 2
        while name in found:
            name, count = f"{evaluation.title} ({count})", count + 1
        found.append(name)
    return tuple(found)


def _compared(figure: str, first: tuple[str, list[float]], other: tuple[str, list[float]]) -> Comparison:
    a, b = np.array(first[1]), np.array(other[1])
    gain = (a - b) if figure in LOWER_IS_BETTER else (b - a)
    wins = float(np.where(np.isnan(gain), np.nan, (gain > 0) + 0.5 * (gain == 0)).mean())
    return Comparison(other[0], first[0], figure, bootstrap(b - a), wins)
