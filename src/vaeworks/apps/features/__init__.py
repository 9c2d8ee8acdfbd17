"""Latents as features of images: a transformer in scikit-learn's manner, and a study of what few labels make of
them."""

from .latent_features import LatentFeatures

__all__ = ["LatentFeatures"]
