"""Optimizers: kind, learning rate and its schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam or AdamW with warm-up and cosine decay, all counted in images."""

    kind: Literal["adam", "adamw"] = "adamw"
    """optimizer; adamw applies weight decay to weights of two and more dimensions only"""
    lr: float = 1e-4
    """peak learning rate"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay of the two moments"""
    weight_decay: float = 0.0
    """decoupled weight decay, adamw only"""
    warmup_images: int = 1000
    """images over which the learning rate rises from 0"""
    final_lr: float = 0.1
    """learning rate at the end, as a share of `lr`; 1 with no warm-up: constant"""
    clip_norm: float = 1.0
    """largest gradient norm; 0: no clipping"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr (={self.lr}) must be positive")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas (={self.betas}) must be two numbers in [0, 1)")
        for name in ("weight_decay", "warmup_images", "final_lr", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} (={getattr(self, name)}) must not be negative")
