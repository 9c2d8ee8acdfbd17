"""Diagnoses: of a VAE itself, and of a VAE in the place of another."""

from .api import Examinations, examine, examine_models
from .compatibility.match import Match, fog, fog_picture, match
from .compatibility.verdict import Fog
from .examination import Examination
from .finding import Figure, Finding

__all__ = [
    "Examination",
    "Examinations",
    "Figure",
    "Finding",
    "Fog",
    "Match",
    "examine",
    "examine_models",
    "fog",
    "fog_picture",
    "match",
]
