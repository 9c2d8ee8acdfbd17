"""Latents as features of images: a transformer in scikit-learn's manner, and a study of what few labels make of them."""

from .few_labels import few_labels, representations
from .latent_features import LatentFeatures

__all__ = ["LatentFeatures", "few_labels", "representations"]
