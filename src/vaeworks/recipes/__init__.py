"""Recipes: functions that return a `TrainConfig`, in plain dicts.

A recipe sets the structure; options set the numbers. Each docstring states the claim that the recipe tests, the
command, and the measurement, if there is one. A figure is an estimate only where the docstring says so. Figures "of
3,000 crops" are those of docs/recipes.md: one thread of an AMD EPYC, bf16, 1,858 dog photographs, judged on 40 others.
Such a run takes about 80 s where nothing else runs, and two minutes with a discriminator.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..config import TrainConfig
from ..errors import ConfigError
from . import audio, bottlenecks, digits, discriminators, finetuning, full_size, losses, regularizers, small
from .painting import PAINTING
from .painting import paint_recipe as paint_recipe
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
"""Recipes by topic."""

RECIPES: dict[str, Make] = {name: make for group in GROUPS.values() for name, make in group.items()}
"""Recipes by name."""


@dataclass(frozen=True)
class RecipeInfo:
    """A row of the list of recipes."""

    recipe: str
    """name, as `recipe` and `vaeworks train` take it, or `paint_recipe` and `vaeworks train-pipeline`"""
    group: str
    """topic"""
    model: str
    """f and c of the autoencoder"""
    purpose: str
    """what the recipe is, in a line"""
    claim: str
    """the claim that the recipe tests; empty where it tests none"""

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return asdict(self)


def list_recipes() -> tuple[RecipeInfo, ...]:
    """Every recipe, group by group: `vaeworks recipes`.

    >>> [row.recipe for row in vw.list_recipes() if row.group == "regularizers"]
    ['equivariance', ...]
    """
    rows = [
        RecipeInfo(name, group, make().model.name, purpose(make), claim(make))
        for group, members in GROUPS.items()
        for name, make in members.items()
    ]
    rows += [
        RecipeInfo(name, "painting (train-pipeline)", f"{make().size} px", purpose(make), "")
        for name, make in PAINTING.items()
    ]
    return tuple(rows)


def recipe(name: str) -> TrainConfig:
    """The configuration of a recipe.

    >>> vw.train(vw.recipe("small-f8c4"), "folder/of/images", "runs/first")

    NAME-tiny is the same on a network that trains in seconds: it shows that a recipe runs, and not how well.
    Errors: ConfigError for an unknown name, with the nearest known one.
    """
    if name.endswith(ENDING) and (larger := name.removesuffix(ENDING)) in RECIPES:
        return tiny(RECIPES[larger]())
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `vaeworks recipes`."
        raise ConfigError(f"unknown recipe {name!r}; {hint} Known: {', '.join(RECIPES)}")
    return RECIPES[name]()


def purpose(make: Callable[[], object]) -> str:
    """A recipe's description in a line."""
    return (make.__doc__ or "").strip().splitlines()[0]


def claim(make: Make) -> str:
    """The claim of the debate that a recipe tests; empty where it tests none."""
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
