"""Which models read and write pictures: those whose images have as many channels as a picture."""

from __future__ import annotations

from ..config import LatentConfig
from ..errors import ConfigError
from ..words import many

PICTURES = (1, 3)
"""Channels of gray and of RGB pictures."""

PICTURES_AND_SOUND = (1, 2, 3)
"""Channels of what files hold."""


def check_pictures(
    config: LatentConfig,
    *,
    reads: bool = True,
    writes: bool = True,
    channels: tuple[int, ...] = PICTURES_AND_SOUND,
    name: str = "this model",
) -> None:
    """Before any work: a model that can be used with pictures.

    reads: whether pictures are encoded. writes: whether decoded images are shown, written or compared; with `reads`,
    they must have as many channels as the pictures. channels: the numbers of channels that are possible. name: of the
    model, where there are several.
    Errors: ConfigError if not, with what the model takes and gives.
    """
    takes, gives = config.in_channels, config.out_channels
    possible = [takes] * reads + [gives] * writes
    if set(possible) <= {*channels} and len({*possible}) <= 1:
        return
    known = {1: "1 (gray)", 2: "2 (stereo sound)", 3: "3 (RGB)"}
    *most, last = (known[number] for number in channels)
    kinds = f"{', '.join(most)} or {last}"
    if not writes:
        rule = f"an image that is read has {kinds}"
    elif not reads:
        rule = f"an image that is written has {kinds}"
    else:
        rule = f"here a model needs as many channels out as in, {kinds}"
    taken, given = many(takes, "channel"), many(gives, "channel")
    raise ConfigError(f"{name} takes images of {taken} and gives images of {given}; {rule}")
