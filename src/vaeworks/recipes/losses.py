"""Losses of pixels and of features: each one change to `small-f8c16`."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import LossConfig, TrainConfig
from .small import small_f8c16


def _with(**loss: Any) -> TrainConfig:
    return dataclasses.replace(small_f8c16(), loss=LossConfig(beta=1e-6, **loss))


def l1() -> TrainConfig:
    """Mean absolute error, as in latent diffusion.

    Claim: sharper than squared error, for a fraction of a decibel.
    vaeworks train l1 --data DIR --out runs/l1    (others: --loss.reconstruction huber, ms_ssim, haar, laplacian ...)
    Measured, of 3,000 crops (docs/recipes.md): 29.47 dB; small-f8c16 has 29.75.
    """
    return _with(reconstruction="l1")


def perceptual() -> TrainConfig:
    """L1 with structure and wavelet terms in place of a perceptual network: needs no weights.

    Claim: a perceptual term decides how sharp pictures look; this one needs no download.
    vaeworks train perceptual --data DIR --out runs/perceptual
    Measured, of 3,000 crops (docs/recipes.md): 28.95 dB; small-f8c16 has 29.75.
    """
    return _with(reconstruction="l1", perceptual="without-weights", perceptual_weight=0.5)


def lpips() -> TrainConfig:
    """L1 + LPIPS with VGG16, the reconstruction loss of latent diffusion; 528 MB of weights are fetched once.

    Claim: the perceptual term accounts for most of a tokenizer's FID.
    vaeworks train lpips --data DIR --out runs/lpips    (--loss.perceptual-path FOLDER: weights that you have)
    Not run at length: we had no VGG16.
    """
    return _with(reconstruction="l1", perceptual="lpips-vgg16")


def vgg() -> TrainConfig:
    """L1 + uncalibrated features of VGG16's first ten layers, whose weights must be given.

    Claim: as lpips, with 7 MB of weights.
    vaeworks train vgg --data DIR --out runs/vgg --loss.perceptual-path VGG16_CONV1TO3_FILE
    Measured, of 3,000 crops (docs/recipes.md): 29.67 dB; small-f8c16 has 29.75.
    """
    return _with(reconstruction="l1", perceptual="vgg16-conv1to3", perceptual_weight=0.1)


def focal_frequency() -> TrainConfig:
    """Squared error with more weight on the frequencies with the largest error.

    Claim: it finds the fine detail that squared error leaves out (arXiv 2012.12821).
    vaeworks train focal-frequency --data DIR --out runs/ff
    Measured, of 3,000 crops (docs/recipes.md): 28.71 dB; small-f8c16 has 29.75.
    """
    return _with(reconstruction="focal_frequency")


RECIPES = {"l1": l1, "perceptual": perceptual, "lpips": lpips, "vgg": vgg, "focal-frequency": focal_frequency}
