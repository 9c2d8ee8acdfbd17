"""Recipes for `train-pipeline`: denoisers for the latents of a VAE."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from ..config import DenoiserConfig, OptimizerConfig, PaintConfig
from ..errors import ConfigError


def paint_tiny() -> PaintConfig:
    """A small SD3 for pictures of 32 to 64 px: learns simple words in minutes on two CPU cores.

    vaeworks train-pipeline --recipe paint-tiny --vae VAE --data shapes:6000:48 --out pipelines/shapes
    """
    return PaintConfig(
        denoiser=DenoiserConfig(width=128, depth=5, head_dim=32, text_width=64),
        optimizer=OptimizerConfig(lr=5e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_images=1600, final_lr=0.02),
        size=48,
        images=200_000,
        batch=32,
        max_minutes=3.0,
        ema_halflife=4000,
        precision="fp32",
    )


def paint_small() -> PaintConfig:
    """A middle-sized SD3 for photographs of 64 to 128 px: an hour on two CPU cores, or minutes on a GPU.

    vaeworks train-pipeline --recipe paint-small --vae VAE --data DIR --caption "a photo of a {}" --out pipelines/pets
    """
    return PaintConfig(
        denoiser=DenoiserConfig(width=256, depth=8, head_dim=64, text_width=128),
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_images=6400, final_lr=0.02),
        size=64,
        flip=True,
        images=1_000_000,
        max_minutes=60.0,
        ema_halflife=20_000,
        val_every=40_000,
        save_every=40_000,
    )


def sd1() -> PaintConfig:
    """Stable Diffusion 1's U-Net of 860 M parameters, from random weights: for a GPU; a CPU takes minutes for a step.

    vaeworks train-pipeline --recipe sd1 --vae VAE --data DIR --out pipelines/sd1
    Not run to its end. The text encoder is as large as CLIP ViT-L's, and is trained along;
    `--denoiser.text-encoder FOLDER` takes that of an existing pipeline, frozen.
    """
    return PaintConfig(
        denoiser=DenoiserConfig(
            kind="sd1", width=320, depth=2, head_dim=8, text_width=768, text_layers=12, tokens=77, vocabulary=48_000
        ),
        optimizer=OptimizerConfig(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, warmup_images=320_000, final_lr=0.1),
        matrices="adamw",
        objective="epsilon",
        standardize="file",
        size=512,
        flip=True,
        images=50_000_000,
        batch=32,
        micro_batch=4,
        gradient_checkpointing=True,
        ema_halflife=320_000,
        val_every=100_000,
        save_every=100_000,
        log_every=3200,
        guidance=7.5,
        steps=30,
    )


PAINTING: dict[str, Callable[[], PaintConfig]] = {"paint-tiny": paint_tiny, "paint-small": paint_small, "sd1": sd1}
"""Recipes of `train-pipeline` by name."""


def paint_recipe(name: str) -> PaintConfig:
    """The configuration of a recipe for `train_pipeline`.

    >>> vw.train_pipeline(vw.paint_recipe("paint-tiny"), "runs/dogs", "shapes", "pipelines/shapes", name="paint-tiny")

    Errors: ConfigError for an unknown name, with the nearest known one.
    """
    if name not in PAINTING:
        near = difflib.get_close_matches(name, PAINTING, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown recipe {name!r} for train-pipeline; {hint}known: {', '.join(PAINTING)}")
    return PAINTING[name]()
