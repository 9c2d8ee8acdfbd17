"""What a training step minimizes. Losses are given the outputs of networks, and import no network."""

from .objective import Distance

__all__ = ["Distance"]
