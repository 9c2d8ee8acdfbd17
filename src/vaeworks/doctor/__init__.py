"""Diagnoses: of a VAE itself, and of a VAE in the place of another."""

from .compatibility.match import Match, fog, fog_picture, match
from .compatibility.verdict import Fog
from .examination import Examination
from .examination import examine_files as examine
from .finding import Figure, Finding

__all__ = ["Examination", "Figure", "Finding", "Fog", "Match", "examine", "fog", "fog_picture", "match"]
