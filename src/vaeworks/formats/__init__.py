"""Model files: every layout in, every layout out."""

from .diffusers import to_diffusers
from .layouts import Layout, detect, load, save

__all__ = ["Layout", "detect", "load", "save", "to_diffusers"]
