"""What is wrong with a VAE, or with a VAE in its place."""

from .examination import Examination, examine
from .finding import Figure, Finding
from .fog import Match, fog, fog_picture, match
from .verdict import Fog

__all__ = ["Examination", "Figure", "Finding", "Fog", "Match", "examine", "fog", "fog_picture", "match"]
