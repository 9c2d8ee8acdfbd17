"""The same recipe on a network that trains in seconds."""

from __future__ import annotations

import dataclasses

from ..config import AutoencoderConfig, OptimizerConfig, TrainConfig

ENDING = "-tiny"

LEVELS = {4: (1, 2, 2), 8: (1, 1, 2, 2), 16: (1, 1, 2, 2, 2)}
"""Widths by downsample factor, in multiples of 8."""


def tiny(config: TrainConfig) -> TrainConfig:
    """The recipe with some ten thousand parameters and a few hundred crops of 32 px: all its parts, without a result.

    Networks whose weights must be given or fetched stay the same. Fine-tuning recipes take the file's network, of any
    size.
    """
    model = config.model
    small: AutoencoderConfig = dataclasses.replace(
        model,
        channels=8,
        channel_mult=LEVELS.get(model.downsample_factor, LEVELS[8]),
        num_res_blocks=1,
        norm_groups=4,
        num_heads=1,
        mid_attention=False,
        attention_factors=(),
        decoder_channels=None,
        decoder_channel_mult=None,
    )
    adversarial = dataclasses.replace(
        config.adversarial,
        channels=16,
        num_layers=2,
        earliest=0.25,
        latest=0.25,
        warmup=0.1,
        ramp=0.1,
        optimizer=dataclasses.replace(config.adversarial.optimizer, lr=2e-3),
    )
    return dataclasses.replace(
        config,
        model=small,
        adversarial=adversarial,
        images=256,
        batch=8,
        micro_batch=None,
        max_minutes=None,
        ema_halflife=64,
        finetune=dataclasses.replace(config.finetune, expects=None),
        data=dataclasses.replace(
            config.data, size=32, workers=0, val_fraction=max(config.data.val_fraction, 0.2), val_images=4
        ),
        optimizer=OptimizerConfig(lr=1e-3, betas=config.optimizer.betas, warmup_images=32, final_lr=0.1),
        val_every=128,
        save_every=128,
        log_every=16,
        stats_images=32,
    )
