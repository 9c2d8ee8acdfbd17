"""What can be trained: recipes are functions that return a `TrainConfig`, in plain dicts.

Structure is chosen by recipe, numbers by flag. Each docstring says what it tests, the command, and what was measured,
if anything was: nothing in it is an estimate unless it says so. Figures "of 3,000 crops" are those of docs/recipes.md:
one thread of an AMD EPYC, bf16, 1,858 dog photographs, judged on 40 others; a run takes about 80 s where nothing else
runs, with a discriminator two minutes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from ..config import TrainConfig
from ..errors import ConfigError
from . import audio, bottlenecks, digits, discriminators, finetuning, full_size, losses, regularizers, small
from .tiny import ENDING, tiny

Make = Callable[[], TrainConfig]

GROUPS: dict[str, dict[str, Make]] = {
    "small networks": small.RECIPES,
    "bottlenecks": bottlenecks.RECIPES,
    "regularizers": regularizers.RECIPES,
    "losses": losses.RECIPES,
    "discriminators": discriminators.RECIPES,
    "fine-tuning": finetuning.RECIPES,
    "full size": full_size.RECIPES,
    "digits": digits.RECIPES,
    "sound": audio.RECIPES,
}
"""Recipes by what they are about."""

RECIPES: dict[str, Make] = {name: make for group in GROUPS.values() for name, make in group.items()}
"""Recipes by name."""


def recipe(name: str) -> TrainConfig:
    """A recipe's configuration; NAME-tiny is the same on a network that trains in seconds, which shows how it goes and
    not how well.

    Errors: ConfigError for an unknown name, with the nearest known one.
    """
    if name.endswith(ENDING) and (larger := name.removesuffix(ENDING)) in RECIPES:
        return tiny(RECIPES[larger]())
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `vaeworks recipes`."
        raise ConfigError(f"unknown recipe {name!r}; {hint} Known: {', '.join(RECIPES)}")
    return RECIPES[name]()


def purpose(make: Make) -> str:
    """What a recipe is, in a line."""
    return (make.__doc__ or "").strip().splitlines()[0]


def claim(make: Make) -> str:
    """Which claim of the debate it tests; empty where it tests none."""
    lines = [line.strip() for line in (make.__doc__ or "").splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Claim: ")), None)
    if start is None:
        return ""
    end = next(
        i
        for i in range(start + 1, len(lines) + 1)
        if i == len(lines) or lines[i].startswith("vaeworks ") or not lines[i]
    )
    return " ".join(lines[start:end]).removeprefix("Claim: ")
