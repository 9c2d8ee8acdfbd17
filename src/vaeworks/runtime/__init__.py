"""Run an autoencoder within a memory budget, in half precision, or compiled."""

from .codec import Certificate, Codec
from .fp16.deviation import Deviation
from .fp16.ranges import LayerRange, activation_ranges, first_overflow, sample_images
from .fp16.repair import RepairedVae, half_safe, repair
from .fp16.report import Repair
from .fp16.scale import scale_activations

__all__ = [
    "Certificate",
    "Codec",
    "Deviation",
    "LayerRange",
    "Repair",
    "RepairedVae",
    "activation_ranges",
    "first_overflow",
    "half_safe",
    "repair",
    "sample_images",
    "scale_activations",
]
