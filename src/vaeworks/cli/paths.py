"""What commands share before they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from .options import settings_of

if TYPE_CHECKING:
    from ..models import Autoencoder
    from ..runtime import Codec
    from ..runtime.opening import Precision


def placed(model: str, told: tuple[str, ...] = ()) -> Autoencoder:
    """The model to compute with, on a GPU where there is one. told: what --set says of it."""
    from ..runtime.opening import open_model

    return open_model(model, settings_of(told))


def loaded(model: str, told: tuple[str, ...] = ()) -> Autoencoder:
    """As `placed`, on the CPU."""
    from ..runtime.opening import open_model

    return open_model(model, settings_of(told), "cpu")


def codec(model: str, memory: str | None, precision: Precision | None, told: tuple[str, ...] = ()) -> Codec:
    """The model within a memory budget, on a GPU where there is one. told: what --set says of it."""
    from ..runtime.opening import open_codec

    return open_codec(model, memory, precision, settings_of(told))


def check_seed(seed: int) -> None:
    """Before any work: seeds are not negative."""
    if seed < 0:
        raise ConfigError(f"seed (={seed}) must not be negative")
