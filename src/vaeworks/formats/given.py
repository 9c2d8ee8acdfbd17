"""Models that a caller hands over in memory, in place of a file's name."""

from __future__ import annotations

from pathlib import Path

from ..models import Autoencoder
from .shared_weights import from_diffusers
from .sources import no_model


def given_model(model: object) -> Autoencoder | None:
    """The autoencoder that `model` is, that a codec holds, or that a VAE of diffusers shares its weights with; None for
    a path or hub id.

    Errors: ConfigError for anything else.
    """
    if isinstance(model, (str, Path)):
        return None
    own = getattr(model, "autoencoder", model)  # of a codec
    if isinstance(own, Autoencoder):
        return own
    if type(model).__module__.startswith("diffusers."):
        return from_diffusers(model)
    raise no_model(model)


def model_in_memory(model: object) -> Autoencoder:
    """As `given_model`, for functions that take no file's name. Errors: ConfigError for one, too."""
    if (found := given_model(model)) is None:
        raise no_model(model, "an Autoencoder", f"`vaeworks.load({str(model)!r})` reads one")
    return found
