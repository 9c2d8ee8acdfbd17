"""Running an autoencoder where its arithmetic is tight."""

from .codec import Certificate, Codec
from .deviation import Deviation
from .halfsafe import half_safe
from .ranges import LayerRange, activation_ranges, first_overflow, sample_images
from .repair import Repair
from .scale import scale_activations

__all__ = [
    "Certificate",
    "Codec",
    "Deviation",
    "LayerRange",
    "Repair",
    "activation_ranges",
    "first_overflow",
    "half_safe",
    "sample_images",
    "scale_activations",
]
