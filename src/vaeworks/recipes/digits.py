"""Two latent numbers for a handwritten digit: a plain autoencoder and a variational one on the same plane."""

from __future__ import annotations

import dataclasses

from ..config import AutoencoderConfig, BottleneckConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig


def digits_vae() -> TrainConfig:
    """A VAE with two latent numbers for a digit of 8 px, trained by the true evidence bound: a plane to look at.

    Claim: a VAE varies; every point near the origin decodes to something like a digit (compare digits-ae).
    vaeworks train digits-vae --data digits --out runs/digits-vae
    docs/variety.md has the measurements, and the options for 16 px, which MNIST allows.
    """
    size, c = 8, 2
    return TrainConfig(
        model=AutoencoderConfig(
            in_channels=1,
            out_channels=1,
            latent_channels=c,
            channels=16,
            channel_mult=(1, 2, 2, 4),
            num_res_blocks=1,
            norm_groups=4,
            mid_attention=False,
        ),
        images=60_000,
        batch=64,
        init="linear",  # from PyTorch's weights the posterior collapsed at once, and stayed so
        data=DataConfig(size=size, min_scale=1.0, flip=False, workers=0, val_images=64),
        loss=LossConfig(reconstruction="optimal-gaussian", beta=c / size**2),
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), warmup_images=1_000, final_lr=0.0),
        ema_halflife=1_000,
        val_every=10_000,
        save_every=20_000,
        log_every=1_000,
    )


def digits_ae() -> TrainConfig:
    """digits-vae as a plain autoencoder: latents are points, without noise and without a KL term.

    Claim: an AE copies; between its codes there are holes without training images (compare digits-vae).
    vaeworks train digits-ae --data digits --out runs/digits-ae
    docs/variety.md has the measurements.
    """
    config = digits_vae()
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, bottleneck=BottleneckConfig(kind="point"))
    )


RECIPES = {"digits-ae": digits_ae, "digits-vae": digits_vae}
