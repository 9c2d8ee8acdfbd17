"""Discriminators, started by the supervisor: each one change to `perceptual`, their control."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import AdversarialConfig, OptimizerConfig, TrainConfig
from .losses import perceptual

_OPTIMIZER = OptimizerConfig(kind="adam", lr=4e-4, betas=(0.5, 0.9), warmup_images=0, final_lr=1.0, clip_norm=0.0)


def _with(**adversarial: Any) -> TrainConfig:
    settings: dict[str, Any] = {"weight": 0.1, "channels": 32, "optimizer": _OPTIMIZER} | adversarial
    return dataclasses.replace(perceptual(), adversarial=AdversarialConfig(**settings))


def patchgan() -> TrainConfig:
    """Latent diffusion's discriminator with BatchNorm, hinge loss and adaptive weight, started by the supervisor.

    Claim: PatchGAN is ancient; against it: with the right start it does its work.
    vaeworks train patchgan --data DIR --out runs/patchgan
    Measured, of 3,000 crops (docs/recipes.md): 28.98 dB; small-f8c16 has 29.75.
    """
    return _with(discriminator="patch")


def modern_gan() -> TrainConfig:
    """PatchGAN with anti-aliased halvings and GroupNorm, hinge loss with LeCam.

    Claim: a modern discriminator is better than PatchGAN (MaskBit, arXiv 2409.16211).
    vaeworks train modern-gan --data DIR --out runs/modern-gan
    Measured, of 3,000 crops (docs/recipes.md): 28.97 dB; small-f8c16 has 29.75.
    """
    return _with(discriminator="modern", lecam=1e-3)


def r3gan() -> TrainConfig:
    """R3GAN's discriminator: residual, unnormalized, relativistic, with gradient penalties on images and on outputs.

    Claim: a GAN with convergence built in needs no tricks (arXiv 2501.05441); we know no published comparison with
    PatchGAN in a VAE.
    vaeworks train r3gan --data DIR --out runs/r3gan
    Measured, of 3,000 crops (docs/recipes.md): 28.88 dB; small-f8c16 has 29.75.
    """
    optimizer = dataclasses.replace(_OPTIMIZER, betas=(0.0, 0.99), lr=2e-4)
    return _with(discriminator="residual", loss="relativistic", r1=1.0, r2=1.0, penalty_final=0.1, optimizer=optimizer)


def unet_gan() -> TrainConfig:
    """A discriminator that judges every pixel as well as the whole (arXiv 2002.12655).

    Claim: feedback at every pixel is better than at patches (LiteVAE, arXiv 2405.14477).
    vaeworks train unet-gan --data DIR --out runs/unet-gan
    Measured, of 3,000 crops (docs/recipes.md): 28.97 dB; small-f8c16 has 29.75.
    """
    return _with(discriminator="unet", channels=16)


def projected_gan() -> TrainConfig:
    """Heads on the features of a frozen network; here VGG16, whose weights must be given.

    Claim: frozen features make the best discriminators (StyleGAN-T, VAR, RAE: with DINO).
    vaeworks train projected-gan --data DIR --out runs/projected --adversarial.network-path VGG16_CONV1TO3_FILE
    With DINOv2: --adversarial.network hf:facebook/dinov2-small
    Measured, of 3,000 crops (docs/recipes.md): 28.85 dB; small-f8c16 has 29.75.
    """
    return _with(discriminator="projected", network="vgg16_conv1to3")


def decoder_gan() -> TrainConfig:
    """As modern-gan, but the encoder is frozen once the adversarial gradient begins.

    Claim: an adversarial term spoils small latents, and belongs in a stage for the decoder alone (DC-AE, l-DeTok).
    vaeworks train decoder-gan --data DIR --out runs/decoder-gan
    Measured, of 3,000 crops (docs/recipes.md): 28.88 dB; small-f8c16 has 29.75.
    """
    return _with(discriminator="modern", lecam=1e-3, stage="decoder")


RECIPES = {
    "patchgan": patchgan,
    "modern-gan": modern_gan,
    "r3gan": r3gan,
    "unet-gan": unet_gan,
    "projected-gan": projected_gan,
    "decoder-gan": decoder_gan,
}
