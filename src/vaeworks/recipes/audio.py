"""Spectrograms of sound."""

from __future__ import annotations

from ..config import AutoencoderConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig


def audio_mel() -> TrainConfig:
    """Mel spectrograms of sound, 8 channels at 1/4, on a laptop: the shape of AudioLDM's latents.

    Crops are 128 columns (2 s) of all 128 bands. They are never scaled, which would shift the pitch, and never
    mirrored, which would reverse time.
    vaeworks train audio-mel --data sound:DIR --out runs/audio
    docs/audio.md says how to listen, and has the measurements.
    """
    return TrainConfig(
        model=AutoencoderConfig(
            in_channels=1,
            out_channels=1,
            latent_channels=8,
            channels=16,
            channel_mult=(1, 2, 4),
            num_res_blocks=1,
            norm_groups=4,
            mid_attention=False,
            quant_conv=False,
            post_quant_conv=False,
        ),
        images=60_000,
        batch=8,
        init="linear",
        data=DataConfig(size=128, min_scale=1.0, flip=False, val_images=32),
        loss=LossConfig(reconstruction="mse", beta=1e-6),
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), warmup_images=1_000, final_lr=0.0),
        ema_halflife=300,
        val_every=4_000,
        save_every=10_000,
    )


RECIPES = {"audio-mel": audio_mel}
