"""Whole data sets to latents, and the latents as a data set."""

from .encode import Encoding, encode_set
from .latent_set import LatentSet
from .plan import Settings

__all__ = ["Encoding", "LatentSet", "Settings", "encode_set"]
