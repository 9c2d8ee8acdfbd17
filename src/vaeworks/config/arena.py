"""The protocol of the arena, frozen and versioned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

ARENA_VERSION = 3
"""Version of the protocol: it grows whenever anything in arena/ changes a figure."""


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """A diffusion transformer's size."""

    width: int
    """width of a token in the network, a multiple of 4 and of `heads`"""
    depth: int
    """number of blocks"""
    heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % 4 or self.width % self.heads:
            raise ConfigError(
                f"width (={self.width}) must be a multiple of 4 and of heads (={self.heads}), depth (={self.depth}) at "
                "least 1"
            )


PROBES = {
    "xs": DiTConfig(width=64, depth=4, heads=2),
    "s": DiTConfig(width=128, depth=6, heads=4),
    "b": DiTConfig(width=384, depth=12, heads=6),
    "l": DiTConfig(width=768, depth=12, heads=12),
}
"""Generators by name: xs and s for CPUs, b (DiT-S's size) and l (DiT-B's) for GPUs."""

Shift = Literal["none", "dimension"]


@dataclass(frozen=True, kw_only=True)
class ArenaConfig:
    """One protocol: the settings that two latent spaces must share so that their figures can be compared."""

    tokens: int = 16
    """tokens of an image, whatever the size of its latents; a square of latents makes a token"""
    probes: tuple[str, ...] = ("xs", "s")
    """sizes of the generator; a difference between spaces counts only where all of them agree"""
    seeds: tuple[int, ...] = (0, 1)
    """seeds of the generator's weights, order, times, noise and samples, the same for every latent space"""
    shifts: tuple[Shift, ...] = ("none", "dimension")
    """timestep shifts to try: none, or by the latents' dimension (RAE); with both, each latent space keeps the one that
    scores best in a pilot run of the first generator and seed"""
    images: int = 32_768
    """training images for each generator"""
    batch: int = 128
    lr: float = 1e-3
    """learning rate of AdamW, constant after the warm-up, for widths up to 128; above, it falls with 1 / sqrt(width)"""
    warmup_images: int = 8_192
    ema_halflife: int = 8_192
    """half-life of the weight average that is scored, in images; shorter at the beginning, as in training VAEs"""
    looks: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """shares of the training after which samples are scored"""
    samples: int = 1_024
    """samples at each of them, from the same noise each time, all classes equally often"""
    sampler_steps: int = 25
    """steps of Euler's method, without guidance"""

    def __post_init__(self) -> None:
        side = math.isqrt(max(self.tokens, 0))
        if self.tokens < 1 or side * side != self.tokens:
            raise ConfigError(f"tokens (={self.tokens}) must be the square of a number: 16, 64, 256")
        for name in self.probes:
            if name not in PROBES:
                raise ConfigError(f"probe {name!r} is not known; choose from {', '.join(PROBES)}")
        for name in ("probes", "seeds", "shifts"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} (={values}) must name at least one, and none twice")
        for shift in self.shifts:
            if shift not in ("none", "dimension"):
                raise ConfigError(f"shift {shift!r} is not known; choose from none, dimension")
        for name in ("batch", "samples", "sampler_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        if self.images < self.batch:
            raise ConfigError(f"images (={self.images}) must be at least one batch (={self.batch})")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr (={self.lr}) must be positive")
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[-1] != 1 or self.looks[0] <= 0:
            raise ConfigError(f"looks (={self.looks}) must rise from above 0 to 1")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds (={self.seeds}) must not be negative")
