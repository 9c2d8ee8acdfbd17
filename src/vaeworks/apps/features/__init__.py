"""Latents as features of images: a transformer with scikit-learn's interface, and a comparison with few labels."""

from .compare import FeatureComparison, compare_features
from .latent_features import LatentFeatures

__all__ = ["FeatureComparison", "LatentFeatures", "compare_features"]
