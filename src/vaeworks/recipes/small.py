"""Small networks that train on a laptop: the controls of every comparison."""

from __future__ import annotations

import dataclasses

from ..config import MODELS, DataConfig, LossConfig, OptimizerConfig, TrainConfig


def demo() -> TrainConfig:
    """The small f8c16 on the bundled photographs in 4 minutes: what `vaeworks demo` trains.

    vaeworks train demo --data photos --out runs/demo
    Measured on 2 CPU cores (AMD EPYC, AVX-512 BF16): 4 minutes, 12,648 crops, 31.55 dB on the four held-out
    photographs, where bicubic down-up by 8 has 27.52.
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
    """2.6 M parameters, 16 channels at 1/8: the shape of SD3's and Flux.1's latents, trains on a laptop.

    vaeworks train small-f8c16 --data DIR --out runs/f8c16
    Measured on 2 CPU cores and 2,080 dog photographs of 256 px with --max-minutes 2.5: 7,560 crops, 30.5 dB on 40
    held-out photographs, where bicubic down-up by 8 has 23.5. The whole run takes about an hour at that speed (not
    run).
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

    Claim: channels are nearly free (compare small-f8c16 and small-f8c64; --model.latent-channels takes any number).
    vaeworks train small-f8c4 --data DIR --out runs/f8c4
    Measured as small-f8c16: 8,384 crops, 26.1 dB, down-up 23.5.
    """
    return dataclasses.replace(small_f8c16(), model=MODELS["small-f8c4"])


def small_f8c64() -> TrainConfig:
    """2.6 M parameters, 64 channels at 1/8: a third of an image's numbers.

    Claim: channels are nearly free; against it: past a point they hurt the diffusion model.
    vaeworks train small-f8c64 --data DIR --out runs/f8c64
    Measured, of 3,000 crops (docs/recipes.md): 30.47 dB; small-f8c16 has 29.75.
    """
    return dataclasses.replace(small_f8c16(), model=dataclasses.replace(MODELS["small-f8c16"], latent_channels=64))


def small_f4c4() -> TrainConfig:
    """2.6 M parameters, 4 channels at 1/4: for small pictures, trains on a laptop.

    vaeworks train small-f4c4 --data DIR --out runs/f4c4
    Measured as small-f8c16, --max-minutes 2.3: 3,520 crops, 30.6 dB, down-up by 4 26.6.
    """
    return dataclasses.replace(small_f8c16(), model=MODELS["small-f4c4"])


def small_f16c32() -> TrainConfig:
    """2.7 M parameters, 32 channels at 1/16, on crops of 128 px: the shape of VA-VAE's latents.

    vaeworks train small-f16c32 --data DIR --out runs/f16c32
    """
    config = small_f8c16()
    model = dataclasses.replace(MODELS["small-f8c16"], latent_channels=32, channel_mult=(1, 2, 4, 6, 6))
    return dataclasses.replace(
        config, model=model, data=dataclasses.replace(config.data, size=128, min_scale=0.25), batch=4
    )


RECIPES = {
    "demo": demo,
    "small-f8c16": small_f8c16,
    "small-f8c4": small_f8c4,
    "small-f8c64": small_f8c64,
    "small-f4c4": small_f4c4,
    "small-f16c32": small_f16c32,
}
