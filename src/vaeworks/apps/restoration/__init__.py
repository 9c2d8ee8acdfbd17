"""Pictures with missing or noisy pixels: what they were, as far as an autoencoder and a prior over its latents know."""

from .damage import Damage, plant
from .noise import estimate_noise
from .prior import SpectralPrior, fit_prior
from .restore import Restored, restore_picture

__all__ = ["Damage", "Restored", "SpectralPrior", "estimate_noise", "fit_prior", "plant", "restore_picture"]
