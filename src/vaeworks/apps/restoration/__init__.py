"""Restore images with missing or noisy pixels, with an autoencoder and a prior over its latents."""

from .damage import Damage, plant
from .noise import estimate_noise
from .prior import SpectralPrior, fit_prior
from .restore import RestorationResult, RestoredFile, restore
from .search import Restored, restore_picture

__all__ = [
    "Damage",
    "RestorationResult",
    "Restored",
    "RestoredFile",
    "SpectralPrior",
    "estimate_noise",
    "fit_prior",
    "plant",
    "restore",
    "restore_picture",
]
