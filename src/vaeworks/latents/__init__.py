"""Data sets to latents, and latents as a data set."""

from .encode import EncodedDataset, encode_dataset
from .latent_set import LatentSet
from .plan import Settings

__all__ = ["EncodedDataset", "LatentSet", "Settings", "encode_dataset"]
