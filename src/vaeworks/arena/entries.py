"""Entrants of an arena: models, and check rows whose result is known beforehand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .space import SpaceSpec

Check = Literal["again", "scrambled", "patches", "pixels"]

CHECKS: dict[Check, tuple[str, str]] = {
    "again": ("the baseline once more, with other seeds", "tie"),
    "scrambled": ("the baseline's latents, all numbers of an image mixed by one orthogonal matrix", "worse"),
    "patches": (
        "squares of 4 x 4 pixels, rotated by one orthogonal matrix: perfect reconstructions, no order",
        "worse",
    ),
    "pixels": ("pixels themselves", "worse"),
}
"""Check rows of every arena: description, and the verdict that each must get against the baseline by the distance to
reconstructions."""

STEADY: frozenset[Check] = frozenset(("scrambled", "patches", "pixels"))
"""Checks without an autoencoder's latents, which hardly vary from seed to seed."""

AGAIN = 1000
"""Added to the baseline's seeds for the row "again"."""


@dataclass(frozen=True)
class Entrant:
    """A row of the arena."""

    name: str
    spaces: tuple[SpaceSpec, ...]
    """one for each training of the VAE; the generator's first seed takes the first, and so on, cyclically"""
    check: Check | None = None
    seed_offset: int = 0

    def space(self, number: int) -> SpaceSpec:
        """The space for the generator's seed of this number, counted from 0."""
        return self.spaces[number % len(self.spaces)]


def checks(baseline: Entrant, channels: int, taken: Collection[str] = ()) -> list[Entrant]:
    """The arena's check rows. channels: of images. taken: names of models, which no check shares."""
    scrambled = tuple(SpaceSpec("scrambled", spec.model, seed=number) for number, spec in enumerate(baseline.spaces))
    made = [
        Entrant("again", baseline.spaces, "again", AGAIN),
        Entrant("scrambled", scrambled, "scrambled"),
        Entrant("patches", (SpaceSpec("patches", channels=channels),), "patches"),
        Entrant("pixels", (SpaceSpec("pixels", channels=channels),), "pixels"),
    ]
    return [replace(entrant, name=_free(entrant.name, taken)) for entrant in made]


def steady(entrants: Sequence[Entrant]) -> frozenset[str]:
    """Names of the rows without an autoencoder's latents."""
    return frozenset(entrant.name for entrant in entrants if entrant.check in STEADY)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{name} (check)"
    return name


def entrants_of(names: Sequence[str], paths: Sequence[str]) -> list[Entrant]:
    """Finished models by name, one space each."""
    return [Entrant(name, (SpaceSpec("vae", path),)) for name, path in zip(names, paths, strict=True)]
