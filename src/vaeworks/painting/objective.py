"""What a denoiser learns: noisy latents, targets and weights, for flows and for Stable Diffusion's noise schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from ..config import PaintConfig
from ..errors import ConfigError
from ..random_streams import PAINT_TIMES, random_uniforms

GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: its multiples fill [0,1) more evenly than random numbers do."""


def uniform_times(seed: int, counters: list[int]) -> Tensor:
    """A number in (0,1) for each image: n, float64. Any images in a row have evenly distributed numbers, which makes
    the mean loss of a batch less noisy."""
    start = random_uniforms(seed, PAINT_TIMES, 0, 1)[0]
    times = (start + GOLDEN * (np.array(counters, dtype=np.float64) % 2**31)) % 1.0
    return torch.from_numpy(np.clip(times, 1e-6, 1 - 1e-6))


def is_dropped(seed: int, counter: int, share: float) -> bool:
    """Whether an image is trained without its caption."""
    return share > 0 and float(random_uniforms(seed, PAINT_TIMES, counter + 1, 1)[0]) < share


class FlowObjective:
    """x = (1 - t) z + t noise, and the network learns noise - z; times are logit-normal (arXiv 2403.03206)."""

    kind = "flow"

    def __init__(self, config: PaintConfig):
        self._mean, self._std = config.logit_mean, config.logit_std

    def times(self, uniforms: Tensor) -> Tensor:
        """Times in (0,1), float32, of uniform numbers."""
        normal = torch.from_numpy(ndtri(uniforms.numpy()))
        return torch.sigmoid(self._mean + self._std * normal).float()

    def noisy(self, z: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps for the network, its target, and the weight of each image."""
        t = times.to(z)
        return torch.lerp(z, noise, t[:, None, None, None]), 1000 * t, noise - z, torch.ones_like(t)


class DiffusionObjective:
    """x = sqrt(a) z + sqrt(1 - a) noise on a scheduler's schedule; the network learns the noise, or v (arXiv
    2202.00512).

    Weights are min-SNR's (arXiv 2303.09556).
    """

    def __init__(self, config: PaintConfig, scheduler: Any, kind: str):
        self.kind = kind
        self._alphas = torch.as_tensor(scheduler.alphas_cumprod, dtype=torch.float32)
        self._most = config.min_snr

    def times(self, uniforms: Tensor) -> Tensor:
        """Steps of the schedule, float32, of uniform numbers."""
        return (uniforms * len(self._alphas)).floor().float()

    def noisy(self, z: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps for the network, its target, and the weight of each image."""
        steps = times.to(z.device).long()
        a = self._alphas.to(z.device)[steps]
        kept, noised = a.sqrt()[:, None, None, None], (1 - a).sqrt()[:, None, None, None]
        snr = a / (1 - a)
        weight = torch.ones_like(snr)
        if self._most and self.kind == "epsilon":
            weight = (self._most / snr).clamp(max=1)  # not 0 / 0 where nothing is left of the latents
        elif self._most:
            weight = snr.clamp(max=self._most) / (snr + 1)
        target = noise if self.kind == "epsilon" else kept * noise - noised * z
        return kept * z + noised * noise, steps, target, weight


def objective_of(config: PaintConfig, scheduler: Any, kind: str) -> FlowObjective | DiffusionObjective:
    """The objective of a pipeline with this scheduler. kind: flow, epsilon or v_prediction.

    Errors: ConfigError for another kind.
    """
    if kind == "flow":
        return FlowObjective(config)
    if kind in ("epsilon", "v_prediction"):
        return DiffusionObjective(config, scheduler, kind)
    raise ConfigError(f"a denoiser that predicts {kind!r} cannot be trained here; take one for epsilon, v or a flow")
