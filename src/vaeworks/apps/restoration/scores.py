"""Scores of a restored image against the truth, in the damaged region and as a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from ...images import difference, labelled
from ...intervals import Interval, bootstrap
from ...metrics.reconstruction import psnr, ssim_in
from ...words import many
from .damage import Damage


@dataclass(frozen=True)
class RestorationScore:
    """PSNR in dB and SSIM of one restored image."""

    psnr: float
    """of the whole image"""
    ssim: float
    psnr_region: float
    """of the damaged pixels alone"""
    ssim_region: float
    """mean of the SSIM map over the damaged pixels"""


def score(truth: Tensor, image: Tensor, region: Tensor) -> RestorationScore:
    """Scores of an image uint8 c h w that was damaged in region, bool h w; nan where a score is undefined."""
    marked = bool(region.any())
    whole, part = ssim_in(truth, image, region)
    return RestorationScore(
        psnr(truth, image), whole, psnr(truth[:, region], image[:, region]) if marked else math.nan, part
    )


def best(scores: Mapping[str, RestorationScore]) -> str:
    """The method with the highest PSNR in the damaged region."""
    return max(scores, key=lambda name: scores[name].psnr_region)


@dataclass(frozen=True)
class RestorationSummary:
    """All methods over all images."""

    means: Mapping[str, RestorationScore]
    """by method; images without a finite figure are left out of a mean"""
    best: str
    """the method with the highest mean PSNR in the damaged region"""
    against: str
    """the best of the baselines"""
    gain: Interval | None
    """PSNR in the damaged region of the search over that baseline, in dB: mean of the paired differences; None where
    no difference is finite"""
    pictures: int

    @property
    def sentence(self) -> str:
        """The gain over the best baseline, with its interval; empty where no difference is finite."""
        if self.gain is None:
            return ""
        ends = f" ({self.gain.low:+.2f} to {self.gain.high:+.2f})" if math.isfinite(self.gain.low) else ""
        return f"VAE against {self.against}: {self.gain.value:+.2f} dB{ends}, {many(self.pictures, 'picture')}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def summary(rows: Sequence[Mapping[str, RestorationScore]], ours: str) -> RestorationSummary:
    """Means of every method over images, and the gain of `ours` over the best of the others with its 95 % bootstrap
    interval.

    rows: for every image, the scores by method.
    """
    names = list(rows[0])
    means = {
        name: RestorationScore(*(_mean([getattr(row[name], key) for row in rows]) for key in _FIGURES))
        for name in names
    }
    other = max((name for name in names if name != ours), key=lambda name: means[name].psnr_region)
    gains = [gain for row in rows if math.isfinite(gain := row[ours].psnr_region - row[other].psnr_region)]
    return RestorationSummary(means, best(means), other, bootstrap(gains) if gains else None, len(rows))


def strip(damage: Damage, methods: Mapping[str, Tensor], ours: str, truth: Tensor | None) -> Image.Image:
    """The original (if known), the damaged image, every method, and 4 times the difference of `ours` from the first,
    with labels above them."""
    name, first = ("input", damage.image) if truth is None else ("original", truth)
    given = {name: first} if truth is None else {name: first, "damaged": damage.image}
    shown = {**given, **methods, f"{ours}: difference from {name} x 4": difference(methods[ours], first)}
    return labelled([list(shown.values())], columns=list(shown))


_FIGURES = tuple(field.name for field in dataclasses.fields(RestorationScore))


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
