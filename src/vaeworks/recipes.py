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
    """The small f8c16 on the bundled photographs in 4 minutes: what `vaeworks demo` trains.

    vaeworks train demo --data photos --out runs/demo
    Measured on 2 CPU cores (AMD EPYC, AVX-512 BF16): 4 minutes, 12,648 crops, 31.55 dB on the four held-out photographs, where
    bicubic down-up by 8 has 27.52.
    """
    config = small_f8c16()
    return dataclasses.replace(
        config,
        images=18_000,
        max_minutes=4.0,
        data=dataclasses.replace(config.data, val_fraction=0.25, workers=0, cache_mib=256),
        val_every=2_000,
        save_every=8_000,
        log_every=80,
    )


def small_f8c16() -> TrainConfig:
    """2.6 M parameters, 16 channels at 1/8: trains on a laptop, the widths of SD3's and Flux.1's latents.

    vaeworks train small-f8c16 --data DIR --out runs/f8c16
    Measured there on 2,080 dog photographs of 256 px with --max-minutes 2.5: 7,560 crops, 30.5 dB on 40 held-out photographs,
    where bicubic down-up by 8 has 23.5. The whole run takes about an hour at that speed (not run).
    """
    return TrainConfig(
        model=MODELS["small-f8c16"],
        images=200_000,
        batch=8,
        init="linear",
        data=DataConfig(size=64, min_scale=0.12),
        loss=LossConfig(reconstruction="mse", beta=1e-6),
        optimizer=OptimizerConfig(lr=5e-4, betas=(0.9, 0.99), warmup_images=1_500, final_lr=0.0),
        ema_halflife=300,
        val_every=10_000,
        save_every=10_000,
    )


def small_f8c4() -> TrainConfig:
    """2.6 M parameters, 4 channels at 1/8: the shape of SD 1, 2 and SDXL latents, trains on a laptop.

    vaeworks train small-f8c4 --data DIR --out runs/f8c4
    Measured as small-f8c16: 8,384 crops, 26.1 dB, down-up 23.5.
    """
    return dataclasses.replace(small_f8c16(), model=MODELS["small-f8c4"])


def small_f4c4() -> TrainConfig:
    """2.6 M parameters, 4 channels at 1/4: for small pictures, trains on a laptop.

    vaeworks train small-f4c4 --data DIR --out runs/f4c4
    Measured as small-f8c16, --max-minutes 2.3: 3,520 crops, 30.6 dB, down-up by 4 26.6.
    """
    return dataclasses.replace(small_f8c16(), model=MODELS["small-f4c4"])


def sd1() -> TrainConfig:
    """Stable Diffusion's own f8c4 network at full size, 83.7 M parameters, on 256 px: L1 and LDM's KL weight, for a GPU.

    vaeworks train sd1 --data DIR --out runs/sd1
    kl_weight 1e-6 of latent diffusion's sum/sum convention is beta 2.08e-8 here; its learning rate 4.5e-6 is per image of
    the batch. It has no perceptual and no adversarial term, which latent diffusion's recipe adds: results will be smoother.
    Measured on 2 CPU cores: a step of one image takes 8 s in bf16 (benchmarks/results/train_step_sd1.txt). No run on a GPU was
    made, and none of this length.
    """
    return TrainConfig(
        model=dataclasses.replace(MODELS["sd1"], scaling_factor=1.0),
        images=3_000_000,
        batch=12,
        data=DataConfig(size=256, min_scale=0.5, workers=8, val_fraction=0.01, val_images=32),
        loss=LossConfig(reconstruction="l1", beta=2.08e-8),
        optimizer=OptimizerConfig(kind="adam", lr=5.4e-5, betas=(0.5, 0.9), warmup_images=10_000, final_lr=1.0),
        ema_halflife=10_000,
        val_every=50_000,
        save_every=50_000,
        log_every=1_200,
        stats_images=5_000,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "small-f8c16": small_f8c16,
    "small-f8c4": small_f8c4,
    "small-f4c4": small_f4c4,
    "sd1": sd1,
}
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
