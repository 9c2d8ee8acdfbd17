"""Settings of the discriminator's supervisor. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """When the discriminator starts, how its weight rises, and what counts as trouble. All counts are in images."""

    start_images: int | None = None
    """count at which the discriminator starts; None: when the reconstruction loss has stopped falling, between
    `earliest` and `latest`"""
    earliest: int = 20_000
    """count before which it does not start"""
    latest: int = 200_000
    """count at which it starts even without a plateau"""
    window: int = 20_000
    """length over which the fall of the reconstruction loss is measured"""
    flat: float = 0.02
    """relative change of the reconstruction loss per window below which it counts as flat"""
    warmup: int = 5_000
    """length of the warm-up, in which the autoencoder gets no adversarial gradient; up to four times as long while the
    discriminator's accuracy is below `warm`"""
    warm: float = 0.6
    """accuracy at which the discriminator is warm"""
    ramp: int = 10_000
    """length of the rise of the adversarial term to its full weight"""
    smoothing: int = 1_000
    """half-life of the averages that the supervisor watches"""
    patience: int = 4_000
    """length of trouble after which the supervisor acts"""
    cooldown: int = 10_000
    """length after an action in which the supervisor does not act again, except after a collapse"""
    winning: float = 0.99
    """accuracy at which the discriminator wins"""
    recovered: float = 0.95
    """accuracy below which it no longer wins"""
    apart: float = 50.0
    """distance between the mean logits of images and reconstructions that counts as trouble; half of it ends
    the trouble"""
    clamp: float = 1e4
    """limit of the adaptive weight, reached where the adversarial gradient has vanished"""
    worse: float = 0.3
    """share by which the reconstruction may be worse than its best; half of it ends the trouble"""
    collapsed: float = 1.0
    """share by which a collapsed reconstruction is worse than its best"""
    pause: int = 4_000
    """length of a pause of the discriminator"""
    lowest: float = 1 / 16
    """smallest weight that halving leads to"""
    nonfinite: int = 3
    """steps in a row with a loss or gradient that is not finite that count as a collapse"""
    restores: int = 3
    """times that the last good state is restored; after the next collapse the adversarial term stays off"""

    def __post_init__(self) -> None:
        for name in ("window", "ramp", "smoothing", "patience", "nonfinite"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be at least 1")
        for name in ("earliest", "warmup", "cooldown", "pause", "restores"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} (={getattr(self, name)}) must not be negative")
        if self.start_images is not None and self.start_images < 0:
            raise ConfigError(f"start_images (={self.start_images}) must not be negative")
        if self.latest < self.earliest:
            raise ConfigError(f"latest (={self.latest}) must not be before earliest (={self.earliest})")
        if not 0.5 <= self.warm <= self.recovered < self.winning <= 1:
            raise ConfigError(
                f"warm (={self.warm}), recovered (={self.recovered}), winning (={self.winning}) must be accuracies "
                "from 0.5 to 1 that rise in this order"
            )
        if not 0 < self.worse < self.collapsed < math.inf:
            raise ConfigError(f"worse (={self.worse}) must be positive and less than collapsed (={self.collapsed})")
        for name in ("flat", "apart", "clamp"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} (={getattr(self, name)}) must be positive")
        if not 0 < self.lowest <= 1:
            raise ConfigError(f"lowest (={self.lowest}) must be in (0, 1]")

    @classmethod
    def for_run(
        cls,
        images: int,
        *,
        start_images: int | None = None,
        earliest: float = 0.2,
        latest: float = 0.6,
        warmup: float = 0.025,
        ramp: float = 0.05,
    ) -> BalanceConfig:
        """Counts in proportion to the length of a run: start between 20 and 60 % of it, full weight 7.5 % later."""

        def share(of: float, least: int = 1) -> int:
            return max(round(images * of), least)

        return cls(
            start_images=start_images,
            earliest=share(earliest, 0),
            latest=share(latest, 0),
            window=share(0.1),
            warmup=share(warmup, 0),
            ramp=share(ramp),
            smoothing=share(0.005),
            patience=share(0.02),
            cooldown=share(0.05, 0),
            pause=share(0.02, 0),
        )
