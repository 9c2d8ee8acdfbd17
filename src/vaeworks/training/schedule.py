"""Progress and learning rate as functions of the images seen."""

from __future__ import annotations

import math

from ..config import OptimizerConfig, TrainConfig


def progress(config: TrainConfig, images_seen: int, seconds: float) -> float:
    """Share of the run that is done, in [0,1]: of its images or of its minutes, whichever is further."""
    done = images_seen / (config.images - config.images % config.batch)  # a last, incomplete batch is left out
    if config.max_minutes is not None:
        done = max(done, seconds / (60 * config.max_minutes))
    return min(done, 1.0)


def learning_rate(config: OptimizerConfig, images_seen: int, done: float) -> float:
    """Linear warm-up over images, then half a cosine over the run down to lr * final_lr (Loshchilov & Hutter 2016)."""
    warmup = min(1.0, images_seen / config.warmup_images) if config.warmup_images else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * warmup * (config.final_lr + (1 - config.final_lr) * cosine)
