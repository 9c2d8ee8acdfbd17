"""What a training step minimizes. Losses are given networks' outputs; they import no network."""

from .objective import objective, reconstruction_loss

__all__ = ["objective", "reconstruction_loss"]
