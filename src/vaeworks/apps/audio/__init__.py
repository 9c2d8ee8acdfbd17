"""Send sound through an autoencoder of spectrograms, and turn pictures of spectrograms back into sound."""

from .griffin_lim import audible, griffin_lim, magnitudes
from .hear import Heard, SoundDistances, hear
from .listen import ListenResult, listen
from .sheet import sheet

__all__ = [
    "Heard",
    "ListenResult",
    "SoundDistances",
    "audible",
    "griffin_lim",
    "hear",
    "listen",
    "magnitudes",
    "sheet",
]
