"""Sides of the squares that images become: what a model takes, and what is taken by default."""

from __future__ import annotations

import math

from ..config import LatentConfig
from ..errors import ConfigError


def multiple_of(*configs: LatentConfig) -> int:
    """The number of pixels whose multiples are sides that each of these models, and what makes tokens of its latents,
    takes."""
    return math.lcm(*(config.downsample_factor * config.latents_patch for config in configs))


def default_size(*configs: LatentConfig) -> int:
    """The side nearest to 256 pixels that each of these models takes."""
    multiple = multiple_of(*configs)
    return max(1, round(256 / multiple)) * multiple


def check_size(size: int, multiple: int) -> None:
    """Errors: ConfigError for a side in pixels that is not a multiple of `multiple`."""
    if size < 1 or size % multiple:
        nearest = max(1, round(size / multiple)) * multiple
        raise ConfigError(f"size (={size}) must be a multiple of {multiple} for this model, such as {nearest}")
