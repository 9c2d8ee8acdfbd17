"""Which sides of squares a model takes."""

from __future__ import annotations

from ..config import LatentConfig
from ..errors import ConfigError


def check_square(size: int, config: LatentConfig) -> None:
    """Errors: ConfigError for a side in pixels that does not give whole latents, or not whole patches of them where the
    diffusion model sees patches."""
    check_multiple(size, config.downsample_factor * config.latents_patch)


def check_multiple(size: int, multiple: int) -> None:
    """Errors: ConfigError for a side in pixels that is not a multiple of `multiple`."""
    if size < 1 or size % multiple:
        nearest = max(1, round(size / multiple)) * multiple
        raise ConfigError(f"size (={size}) must be a multiple of {multiple} for this model, such as {nearest}")
