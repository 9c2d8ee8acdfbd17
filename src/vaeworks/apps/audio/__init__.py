"""Sound through an autoencoder of spectrograms, and pictures of spectrograms back to sound."""

from .griffin_lim import audible, griffin_lim, magnitudes
from .listen import Heard, SoundDistances, listen
from .sheet import sheet

__all__ = ["Heard", "SoundDistances", "audible", "griffin_lim", "listen", "magnitudes", "sheet"]
