"""Bottlenecks: every side of the debate about KL terms, bounds and noise, each one change to `small-f8c16`."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import BottleneckConfig, LossConfig, RegularizerConfig, TrainConfig
from .small import small_f8c16


def _with(bottleneck: BottleneckConfig, regularizers: RegularizerConfig | None = None, **model: Any) -> TrainConfig:
    config = small_f8c16()
    model |= {"bottleneck": bottleneck}
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, **model), regularizers=regularizers or config.regularizers
    )


def kl_strong() -> TrainConfig:
    """A KL weight of 0.01 in mean/mean units, 1e5 times latent diffusion's: latents nearer to a normal distribution.

    Claim: SD's KL is too weak, hence the magic scaling factor; against it: past a point a stronger one hurts.
    vaeworks train kl-strong --data DIR --out runs/kl-strong    (a sweep: --loss.beta 1e-8 ... 1)
    Measured, of 3,000 crops (docs/recipes.md): 27.89 dB; small-f8c16 has 29.75.
    """
    return dataclasses.replace(small_f8c16(), loss=LossConfig(reconstruction="mse", beta=1e-2))


def sigma_vae() -> TrainConfig:
    """The true evidence bound: a Gaussian likelihood with each image's best variance, and the KL weight of the bound.

    Claim: there is no beta left to choose (arXiv 2006.13202).
    vaeworks train sigma-vae --data DIR --out runs/sigma-vae
    Measured, of 3,000 crops (docs/recipes.md): 28.30 dB; small-f8c16 has 29.75.
    """
    config = small_f8c16()
    c, f = config.model.latent_channels, config.model.downsample_factor
    return dataclasses.replace(config, loss=LossConfig(reconstruction="optimal-gaussian", beta=c / (3 * f**2)))


def plain_ae() -> TrainConfig:
    """A plain autoencoder: no variance, no KL, no bound, no noise.

    Claim: it is what a VAE with latent diffusion's KL weight is already.
    vaeworks train plain-ae --data DIR --out runs/plain-ae
    Measured, of 3,000 crops (docs/recipes.md): 29.52 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point"))


def clamped_ae() -> TrainConfig:
    """A plain autoencoder: latents clamped to [-3,3], a term that keeps their variance at 1, noise before the decoder.

    Claim: this beats KL, according to a trainer of such VAEs in the debate that started this project.
    vaeworks train clamped-ae --data DIR --out runs/clamped-ae
    Measured, of 3,000 crops (docs/recipes.md): 28.49 dB (the variance term was squared); small-f8c16 has 29.75.
    """
    bottleneck = BottleneckConfig(kind="point", bound="clamp", limit=3.0, noise="additive", noise_scale=0.2)
    return _with(bottleneck, RegularizerConfig(variance_floor=0.01))


def tanh() -> TrainConfig:
    """Latents within (-1,1) by tanh.

    Claim: bounding the latents is easy and rids us of the magic number.
    vaeworks train tanh --data DIR --out runs/tanh
    Measured, of 3,000 crops (docs/recipes.md): 28.19 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="tanh", limit=1.0))


def softclamp() -> TrainConfig:
    """Latents within (-3,3) by 3 tanh(z/3), which hardly changes small values: TAESD's bound.

    Claim: as tanh, with less saturation.
    vaeworks train softclamp --data DIR --out runs/softclamp
    Measured, of 3,000 crops (docs/recipes.md): 29.50 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="softclamp", limit=3.0))


def rmsnorm() -> TrainConfig:
    """Latents with a root mean square of 1 at every position.

    Claim: normalizing makes the magic number 1 without a KL term (GAE, arXiv 2603.10365).
    vaeworks train rmsnorm --data DIR --out runs/rmsnorm
    Measured, of 3,000 crops (docs/recipes.md): 29.34 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="rmsnorm"))


def layernorm() -> TrainConfig:
    """Latents with mean 0 and variance 1 over each whole image, as in DiTo.

    Claim: as rmsnorm; brightness and contrast of an image are no longer in single positions (arXiv 2501.18593).
    vaeworks train layernorm --data DIR --out runs/layernorm
    Measured, of 3,000 crops (docs/recipes.md): 29.58 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="layernorm"))


def sphere() -> TrainConfig:
    """Latents of length 1 at every position.

    Claim: a bounded space without a prior (HAE, arXiv 2601.22904; Sphere-Encoder, arXiv 2602.15030).
    vaeworks train sphere --data DIR --out runs/sphere
    Measured, of 3,000 crops (docs/recipes.md): 28.45 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="sphere"))


def batchnorm() -> TrainConfig:
    """The KL bottleneck, normalized by running statistics of 2x2 patches, as in Flux.2, in place of one factor.

    Claim: running statistics replace the magic number.
    vaeworks train batchnorm --data DIR --out runs/batchnorm
    Measured, of 3,000 crops (docs/recipes.md): 29.62 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(), normalization="batchnorm", latents_patch=2)


def noise() -> TrainConfig:
    """RMS-normalized latents with additive noise of a random level before the decoder.

    Claim: perturbation makes latents good (RAE, arXiv 2510.11690).
    vaeworks train noise --data DIR --out runs/noise
    Measured, of 3,000 crops (docs/recipes.md): 28.32 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="rmsnorm", noise="additive", noise_scale=0.5))


def denoise() -> TrainConfig:
    """Latents mixed with noise, up to pure noise, from which the decoder reconstructs.

    Claim: latent denoising makes latents good for any generator (l-DeTok, arXiv 2507.15856).
    vaeworks train denoise --data DIR --out runs/denoise
    Measured, of 3,000 crops (docs/recipes.md): 22.89 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(noise="interpolative", noise_scale=3.0))


def sigma_noise() -> TrainConfig:
    """RMS-normalized latents with noise of one random strength for each image.

    Claim: a fixed noise replaces the KL term (LatentLM, arXiv 2412.08635; GAE).
    vaeworks train sigma-noise --data DIR --out runs/sigma-noise
    Measured, of 3,000 crops (docs/recipes.md): 28.52 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(kind="point", bound="rmsnorm", noise="sigma", noise_scale=0.2))


def variance_expansion() -> TrainConfig:
    """A loss that rewards a wide posterior, and an envelope that limits it, without a KL term.

    Claim: it beats every KL weight (VE-Loss, arXiv 2603.21085).
    vaeworks train variance-expansion --data DIR --out runs/ve
    Measured, of 3,000 crops (docs/recipes.md): 28.56 dB; small-f8c16 has 29.75.
    """
    config = _with(BottleneckConfig(), RegularizerConfig(variance_expansion=1e-5, envelope=1e-6))
    return dataclasses.replace(config, loss=LossConfig(reconstruction="mse", beta=0.0))


def prefixes() -> TrainConfig:
    """Decoding from a random number of leading channels, so that the first channels hold the most.

    Claim: many channels do not hurt if they are ordered (DC-AE 1.5, arXiv 2508.00413).
    vaeworks train prefixes --data DIR --out runs/prefixes
    Measured, of 3,000 crops (docs/recipes.md): 28.54 dB; small-f8c16 has 29.75.
    """
    return _with(BottleneckConfig(prefixes=(4, 8, 16)))


RECIPES = {
    "kl-strong": kl_strong,
    "sigma-vae": sigma_vae,
    "plain-ae": plain_ae,
    "clamped-ae": clamped_ae,
    "tanh": tanh,
    "softclamp": softclamp,
    "rmsnorm": rmsnorm,
    "layernorm": layernorm,
    "sphere": sphere,
    "batchnorm": batchnorm,
    "noise": noise,
    "denoise": denoise,
    "sigma-noise": sigma_noise,
    "variance-expansion": variance_expansion,
    "prefixes": prefixes,
}
