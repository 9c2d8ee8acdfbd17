"""New training images from labelled ones: variants of latents with provenance, and whether a classifier gains by
them."""

from .folder import write_folder
from .judgement import judge
from .plan import METHODS, Noise, Variant, blends
from .render import Renderer, reproduce

__all__ = ["METHODS", "Noise", "Renderer", "Variant", "blends", "judge", "reproduce", "write_folder"]
