"""The positive control of an arena: pixels, whose effect on a diffusion model is published."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config import PROBES
from ..intervals import Interval
from .verdict import BaselineComparison, Figures, compare, seed_noise, smallest_ratio

PUBLISHED = (
    "Latent diffusion models (Rombach et al. 2022, section 4.1, figures 6 and 7) found that a diffusion model learns "
    "pixels far more slowly than latents of factors 4 to 16: 38 of FID lie between pixels and factor 8 after 2 million "
    "steps on ImageNet"
)
"""The effect that the control must show. Its size there is no measure of the size here: images, networks and features
of the distance differ."""

MEANING = (
    f"{PUBLISHED}. So pixels must come out worse than every autoencoder here. Sizes cannot be compared: images, "
    "networks and features of the distance differ"
)
"""What the control is, for pages."""


@dataclass(frozen=True)
class PositiveControl:
    """Pixels compared with every autoencoder, by one distance."""

    comparisons: tuple[BaselineComparison, ...]
    """pixels' distances over the autoencoder's, for each autoencoder, which is the comparison's `row`"""
    visible: Mapping[str, float]
    """by generator: ratio of two distances from which one is called worse; inf where seeds say nothing about noise"""
    handicap: str
    """generators that are narrower than a token of pixels, as a sentence; "" where none is"""

    @property
    def missed(self) -> tuple[BaselineComparison, ...]:
        """Autoencoders than which pixels do not come out worse."""
        return tuple(c for c in self.comparisons if c.verdict != "worse")

    @property
    def passed(self) -> bool:
        """Whether pixels come out worse than every autoencoder, with every generator."""
        return bool(self.comparisons) and not self.missed

    @property
    def hidden(self) -> bool:
        """Whether no interval speaks against the effect, and a verdict is missing for lack of generators or seeds."""
        ratios = [ratio for c in self.missed for ratio in c.ratios.values()]
        return bool(ratios) and all(c.verdict == "undecided" for c in self.missed) and all(r.low > 1 for r in ratios)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it shows: the outcome with the smallest effect, what it means, and what sizes are visible."""
        if not self.comparisons:
            return ("No positive control was run: without pixels, nothing says whether this arena could see an effect",)
        if self.passed:
            told = [
                f"Positive control passed: pixels come out worse than every autoencoder, by at least {_least(self)}",
                "An effect of that size is visible here, and this says nothing about smaller ones",
            ]
        elif self.hidden:
            told = [
                f"Positive control undecided: pixels against {_each(self.missed)}",
                "So nothing says whether this arena could see an effect of that size",
            ]
        else:
            told = [
                f"Positive control failed: pixels do not come out worse than {_each(self.missed)}",
                "This arena could not have seen an effect of that size, so that a tie, and a verdict that is "
                "undecided, say nothing about it",
            ]
        if seen := {probe: factor for probe, factor in self.visible.items() if math.isfinite(factor)}:
            factors = " and ".join(f"{factor:.2f} ({probe})" for probe, factor in seen.items())
            told.append(f"Two distances must differ by a factor of {factors} for one to be called worse")
        return tuple(told)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "passed": self.passed,
            "comparisons": [asdict(c) for c in self.comparisons],
            "visible": {probe: factor if math.isfinite(factor) else None for probe, factor in self.visible.items()},
            "sentences": [*self.sentences, *([self.handicap] if self.handicap else [])],
        }


def positive_control(
    figures: Figures,
    pixels: str | None,
    autoencoders: Sequence[str],
    probes: Sequence[str],
    steady: Collection[str],
    numbers: int,
) -> PositiveControl:
    """The control by one distance.

    figures, probes, steady: as in `compare`. pixels: the row of pixels, None where there is none. autoencoders: rows of
    autoencoders. numbers: in a token of pixels.
    """
    if pixels is None:
        return PositiveControl((), {}, "")
    found = {name: compare(figures, pixels, name, probes, steady) for name in autoencoders}
    seeds = {probe: min(len(figures[name][probe]) for name in (pixels, *autoencoders)) for probe in probes}
    return PositiveControl(
        tuple(BaselineComparison(name, c.ratios, c.verdict, c.why) for name, c in found.items()),
        {probe: smallest_ratio(seed_noise(figures, probe, steady), seeds[probe]) for probe in probes},
        narrow({"pixels": numbers}, probes, "a part of the effect may be that"),
    )


def narrow(numbers: Mapping[str, int], probes: Sequence[str], consequence: str) -> str:
    """Which rows have tokens of more numbers than a generator is wide, as a sentence; "" where none has.

    A narrower one cannot learn to denoise them (RAE, arXiv 2510.11690, section 4), whatever the autoencoder.
    numbers: in a token, by row.
    """
    found = [
        f"{probe} is {width} wide, and a token of {row} has {count} numbers"
        for probe, width in ((p, PROBES[p].width) for p in probes)
        for row, count in numbers.items()
        if count > width
    ]
    return f"{'; '.join(found)}: {consequence}" if found else ""


def ratio(interval: Interval) -> str:
    """A ratio of distances, and its interval."""
    low, high = (f"{v:.2f}" if v >= 0.1 else f"{v:.2g}" for v in (interval.low, min(interval.high, 1e6)))
    return f"{interval.value:.2f}, {low} to {high if interval.high < 1e6 else '∞'}"


def _least(control: PositiveControl) -> str:
    """By generator, the smallest ratio with its interval, and the autoencoder."""
    said = []
    for probe in control.visible:
        least = min(control.comparisons, key=lambda c: c.ratios[probe].value)
        said.append(f"{ratio(least.ratios[probe])} times its distance ({probe}, {least.row})")
    return " and ".join(said)


def _each(missed: Sequence[BaselineComparison]) -> str:
    """Autoencoders with their ratios and the verdict; a common one is said once."""
    common = len({(c.verdict, c.why) for c in missed}) == 1
    said = []
    for c in missed:
        parts = [f"{probe} {ratio(interval)}" for probe, interval in c.ratios.items()]
        said.append(f"{c.row} ({'; '.join(parts if common else [*parts, f'{c.verdict}: {c.why}'])})")
    return ", ".join(said) + (f": {missed[0].verdict}, {missed[0].why}" if common else "")
