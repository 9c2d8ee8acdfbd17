"""Edit images in latent space: attributes, arithmetic, colours, statistics, everywhere or within a mask."""

from .adjust import (
    Adjustment,
    ChannelChange,
    LinearDecoder,
    adjusted_latents,
    adjusted_pixels,
    linear_decoder,
    parse_channel,
)
from .arithmetic import combined, parse_expression
from .directions import Direction, fit_direction, load_direction, save_direction
from .region import composed, edit_picture, latent_weights
from .statistics import transferred

__all__ = [
    "Adjustment",
    "ChannelChange",
    "Direction",
    "LinearDecoder",
    "adjusted_latents",
    "adjusted_pixels",
    "combined",
    "composed",
    "edit_picture",
    "fit_direction",
    "latent_weights",
    "linear_decoder",
    "load_direction",
    "parse_channel",
    "parse_expression",
    "save_direction",
    "transferred",
]
