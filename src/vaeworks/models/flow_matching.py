"""Flow matching: noise to latents along straight lines.

x_t = (1 - t) z + t noise, and the network learns the velocity noise - z. Source: Lipman et al. 2022 (arXiv 2210.02747);
Liu et al. 2022 (arXiv 2209.03003). Times are logit-normal (Esser et al. 2024, arXiv 2403.03206).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

BASE_DIMENSION = 4096
"""Numbers of a latent for which the shift by dimension is none: RAE's (arXiv 2510.11690)."""

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of x: n k d at times n of classes n."""


def shift_of(name: str, dimension: int) -> float:
    """The factor alpha by which times are shifted: 1, or √(dimension / 4096); dimension: numbers of an image's
    latents."""
    return math.sqrt(dimension / BASE_DIMENSION) if name == "dimension" else 1.0


def shifted(t: Tensor, alpha: float) -> Tensor:
    """alpha t / (1 + (alpha - 1) t): the same signal-to-noise ratio in alpha² times as many equal numbers."""
    return alpha * t / (1 + (alpha - 1) * t)


def flow_loss(velocity: Velocity, z: Tensor, labels: Tensor, noise: Tensor, normal: Tensor, alpha: float) -> Tensor:
    """Mean squared error of the velocity at random times. z, noise: n k d; normal: n, standard normal, which gives the
    times."""
    t = shifted(torch.sigmoid(normal), alpha)
    mixed = torch.lerp(z, noise, t[:, None, None])
    return (velocity(mixed, t, labels) - (noise - z)).square().mean()


def euler(velocity: Velocity, noise: Tensor, labels: Tensor, steps: int, alpha: float) -> Tensor:
    """Latents from noise n k d, by so many steps of Euler's method, in times that are even before they are shifted."""
    times = shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), alpha).tolist()
    x = noise
    for now, after in itertools.pairwise(times):
        x = x - (now - after) * velocity(x, torch.full((len(x),), now, device=x.device), labels)
    return x
