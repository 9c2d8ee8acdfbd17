"""How near to the truth a restored picture is, where it was damaged and as a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...images import difference
from ...intervals import bootstrap
from ...metrics.reconstruction import psnr, ssim_in
from .damage import Damage


@dataclass(frozen=True)
class RestorationScore:
    """PSNR in dB and SSIM of one restored picture."""

    psnr: float
    """of the whole picture"""
    ssim: float
    psnr_region: float
    """of the damaged pixels alone"""
    ssim_region: float
    """mean of SSIM's map over the damaged pixels"""


def score(truth: Tensor, image: Tensor, region: Tensor) -> RestorationScore:
    """The figures of a picture uint8 c h w, damaged in region, bool h w. What cannot be measured is nan."""
    marked = bool(region.any())
    whole, part = ssim_in(truth, image, region)
    return RestorationScore(
        psnr(truth, image), whole, psnr(truth[:, region], image[:, region]) if marked else math.nan, part
    )


def best(scores: Mapping[str, RestorationScore]) -> str:
    """The method with the highest PSNR where the picture was damaged."""
    return max(scores, key=lambda name: scores[name].psnr_region)


def summary(rows: Sequence[Mapping[str, RestorationScore]], ours: str) -> dict[str, Any]:
    """Means of every method over pictures, which is best, and `ours` against the best of the others.

    The gain is in PSNR of the damaged region, paired, with a 95 % bootstrap interval over pictures.

    Pictures without a finite figure are left out of a mean.
    """
    names = list(rows[0])
    table = {name: {key: _mean([getattr(row[name], key) for row in rows]) for key in _FIGURES} for name in names}
    regions = {name: table[name]["psnr_region"] for name in names}
    other = max((name for name in names if name != ours), key=regions.__getitem__)
    gains = [gain for row in rows if math.isfinite(gain := row[ours].psnr_region - row[other].psnr_region)]
    against = dataclasses.asdict(bootstrap(gains)) if gains else None
    return {
        "means": table,
        "best": max(names, key=regions.__getitem__),
        "against": other,
        "gain": against,
        "pictures": len(rows),
    }


def strip(damage: Damage, methods: Mapping[str, Tensor], ours: str, truth: Tensor | None) -> list[Tensor]:
    """Original (where it is known), damaged, every method, and the difference x 4 of ours from the original or from
    what was given."""
    first = [damage.image] if truth is None else [truth, damage.image]
    return [*first, *methods.values(), difference(methods[ours], first[0])]


_FIGURES = tuple(field.name for field in dataclasses.fields(RestorationScore))


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
