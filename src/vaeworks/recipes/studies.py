"""Studies for the arena: autoencoders that differ in one thing, trained on equally many images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from ..config import AutoencoderConfig, BottleneckConfig, DataConfig, OptimizerConfig, TrainConfig
from ..errors import ConfigError
from .bottlenecks import RECIPES as BOTTLENECKS
from .discriminators import RECIPES as DISCRIMINATORS
from .losses import perceptual
from .regularizers import RECIPES as REGULARIZERS

BASELINE = "kl-1e-6"
"""The autoencoder that every study shares: latent diffusion's bottleneck and squared error. The weight is of a KL term
in mean/mean units, and about latent diffusion's."""

LEVELS = {2: (1, 2), 4: (1, 2, 2), 8: (1, 2, 2, 2), 16: (1, 2, 2, 2, 2), 32: (1, 2, 2, 2, 2, 2)}
"""Widths of levels by downsample factor, in multiples of the first."""


@dataclass(frozen=True, kw_only=True)
class StudyScale:
    """How large a study is: the same arms on a laptop and on a cluster."""

    size: int = 32
    """side of images, in pixels"""
    channels: int = 16
    """width of the autoencoders' first level"""
    images: int = 40_000
    """training images of each autoencoder"""
    batch: int = 32
    lr: float = 1.5e-3

    @property
    def factor(self) -> int:
        """Downsample factor of the baseline: latents are 8 x 8."""
        return max(2, self.size // 8)

    def __post_init__(self) -> None:
        if self.size < 16 or self.size & (self.size - 1):
            raise ConfigError(f"size (={self.size}) of a study must be a power of 2 from 16: 32, 64, 128")
        if 2 * self.factor not in LEVELS:
            raise ConfigError(f"size (={self.size}) of a study must be at most {4 * max(LEVELS)}")
        if self.channels < 8 or self.channels % 8:
            raise ConfigError(f"channels (={self.channels}) must be a multiple of 8")
        if self.images < self.batch:
            raise ConfigError(f"images (={self.images}) must be at least one batch (={self.batch})")


@dataclass(frozen=True)
class Study:
    """One question, and the autoencoders that answer it."""

    question: str
    arms: Callable[[StudyScale], dict[str, TrainConfig]]
    """by name, the baseline first"""


def base(scale: StudyScale, factor: int | None = None, latent_channels: int = 4) -> TrainConfig:
    """The control: a small KL autoencoder with 4 channels of 8 x 8 latents, a squared error and a KL weight of 1e-6."""
    f = factor or scale.factor
    if f not in LEVELS:
        raise ConfigError(f"downsample factor {f} is not among {', '.join(map(str, LEVELS))}; choose another size")
    model = AutoencoderConfig(
        latent_channels=latent_channels,
        channels=scale.channels,
        channel_mult=LEVELS[f],
        num_res_blocks=1,
        norm_groups=8,
        mid_attention=False,
        quant_conv=False,
        post_quant_conv=False,
    )
    return TrainConfig(
        model=model,
        images=scale.images,
        batch=scale.batch,
        init="linear",
        data=DataConfig(
            size=scale.size, min_scale=1.0, flip=False, val_fraction=0.05, val_images=64, workers=0, cache_mib=2048
        ),
        optimizer=OptimizerConfig(
            lr=scale.lr, betas=(0.9, 0.99), warmup_images=min(1_500, scale.images // 10), final_lr=0.0
        ),
        loss=dataclasses.replace(TrainConfig().loss, reconstruction="mse", beta=1e-6),
        ema_halflife=500,
        val_every=max(scale.images // 4, 1),
        save_every=max(scale.images // 4, 1),
        log_every=500,
        trackers=(),
    )


def grafted(recipe: TrainConfig, scale: StudyScale) -> TrainConfig:
    """The baseline of this scale with a recipe's bottleneck, losses, regularizers and discriminator."""
    config = base(scale)
    prefixes = tuple(sorted({max(1, p * config.model.latent_channels // 16) for p in recipe.model.bottleneck.prefixes}))
    bottleneck = dataclasses.replace(recipe.model.bottleneck, prefixes=prefixes)
    patch = recipe.model.latents_patch
    model = dataclasses.replace(
        config.model, bottleneck=bottleneck, latents_patch=patch, normalization=recipe.model.normalization
    )
    adversarial = dataclasses.replace(recipe.adversarial, num_layers=2)
    return dataclasses.replace(
        config, model=model, loss=recipe.loss, regularizers=recipe.regularizers, adversarial=adversarial
    )


def _beta(scale: StudyScale, beta: float) -> TrainConfig:
    config = base(scale)
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, beta=beta))


def kl(scale: StudyScale) -> dict[str, TrainConfig]:
    """KL weights from almost 0 to a strong prior, and no KL term at all."""
    point = dataclasses.replace(base(scale).model, bottleneck=BottleneckConfig(kind="point"))
    return {
        BASELINE: base(scale),
        "no-kl": dataclasses.replace(base(scale), model=point),
        **{f"kl-{beta:g}": _beta(scale, beta) for beta in (1e-4, 1e-3, 1e-2, 1e-1)},
    }


def channels(scale: StudyScale) -> dict[str, TrainConfig]:
    """Channels and downsample factors around the baseline's, with equal numbers of tokens for the generator."""
    f = scale.factor
    return {
        BASELINE: base(scale),
        **{f"f{f}c{c}": base(scale, f, c) for c in (2, 8, 16, 32)},
        **{f"f{2 * f}c{c}": base(scale, 2 * f, c) for c in (16, 64)},
    }


def bottleneck(scale: StudyScale) -> dict[str, TrainConfig]:
    """KL against bounded, normalized and noisy latents; clamped-ae is the debate's proposal."""
    names = ("tanh", "softclamp", "rmsnorm", "layernorm", "noise", "clamped-ae", "variance-expansion")
    return {BASELINE: base(scale)} | {name: grafted(BOTTLENECKS[name](), scale) for name in names}


def equivariance(scale: StudyScale) -> dict[str, TrainConfig]:
    """Regularizers that shape latents for a diffusion model and need no network's weights."""
    return {BASELINE: base(scale)} | {
        n: grafted(REGULARIZERS[n](), scale) for n in ("equivariance", "scale-equivariance", "spectrum", "lowpass")
    }


def discriminator(scale: StudyScale) -> dict[str, TrainConfig]:
    """No discriminator against PatchGAN and newer ones, with one perceptual distance for all."""
    names = ("patchgan", "modern-gan", "r3gan", "decoder-gan")
    return {BASELINE: base(scale), "perceptual": grafted(perceptual(), scale)} | {
        n: grafted(DISCRIMINATORS[n](), scale) for n in names
    }


STUDIES: dict[str, Study] = {
    "kl": Study("How much KL is good for the diffusion model?", kl),
    "channels": Study("Are more channels nearly free?", channels),
    "bottleneck": Study("Do bounds, normalization and noise beat KL?", bottleneck),
    "equivariance": Study("Do latents that move like pictures help?", equivariance),
    "discriminator": Study("Does the discriminator matter, and which?", discriminator),
}


def study(name: str) -> Study:
    """A study by name. Errors: ConfigError for an unknown one."""
    if name not in STUDIES:
        raise ConfigError(f"study {name!r} is not known; choose from {', '.join(STUDIES)}")
    return STUDIES[name]
