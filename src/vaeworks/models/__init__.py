"""The networks."""

from .autoencoder import Autoencoder, build
from .decoder import Decoder
from .encoder import Encoder
from .posterior import Posterior

__all__ = ["Autoencoder", "Decoder", "Encoder", "Posterior", "build"]
