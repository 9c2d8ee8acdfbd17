"""What can be trained: recipes are functions that return a `TrainConfig`, in a plain dict.

Structure is chosen by recipe, numbers by flag. Each docstring says the command, the hardware, the time and what was
measured there; nothing in it is an estimate unless it says so.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

from .config import MODELS, DataConfig, LossConfig, OptimizerConfig, TrainConfig
from .errors import ConfigError


def demo() -> TrainConfig:
    """The 4-minute demo."""
    return TrainConfig(
        model=dataclasses.replace(MODELS["small-f8c16"]), images=20_000, max_minutes=4, init="linear",
        data=DataConfig(min_scale=0.2, val_fraction=0.25, workers=0, cache_mib=256), loss=LossConfig(reconstruction="mse", beta=1e-6),
        optimizer=OptimizerConfig(lr=1e-3, final_lr=0.02, warmup_images=200),
        val_every=2000, save_every=10000, log_every=160,
    )  # fmt: skip


def sd1() -> TrainConfig:
    """The KL-f8."""
    return TrainConfig(model=MODELS["sd1"])


RECIPES: dict[str, Callable[[], TrainConfig]] = {f.__name__.replace("_", "-"): f for f in (demo, sd1)}
"""Recipes by name."""


def recipe(name: str) -> TrainConfig:
    """A recipe's configuration.

    Errors: ConfigError for an unknown name, with the nearest known one.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `vaeworks recipes`."
        raise ConfigError(f"unknown recipe {name!r}; {hint} Known: {', '.join(RECIPES)}")
    return RECIPES[name]()
