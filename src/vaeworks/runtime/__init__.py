"""Run an autoencoder within a memory budget, in half precision, or compiled."""

from .codec import Certificate, Codec
from .fp16.deviation import Deviation
from .fp16.ranges import LayerRange, activation_ranges, first_overflow, sample_images
from .fp16.repair import half_safe
from .fp16.report import Repair
from .fp16.scale import scale_activations

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
