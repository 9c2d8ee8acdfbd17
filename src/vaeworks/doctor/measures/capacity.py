"""What the channels of a posterior carry about an image, in nats and bits, and which carry nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ...metrics.dead_channels import DEAD_NATS, DEAD_SHARE
from ...models.posterior import Posterior
from ..subject import Subject
from .channel_moments import ChannelMoments, Gathering

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Channels:
    """Statistics of all latents by channel."""

    sets: ChannelMoments
    """of the posteriors' means, in sets of images"""
    variance: Array
    """g c: mean variance of the posteriors, by the same sets; 0 where latents are points"""
    kl: Array | None
    """n c: mean KL divergence from the prior by image, nats per element; None where latents are points"""
    low: Array
    """c: smallest mean"""
    high: Array
    """c: largest mean"""

    @property
    def total(self) -> ChannelMoments:
        """Of all means."""
        return self.sets.pooled()

    @property
    def sampled(self) -> ChannelMoments:
        """Of posterior samples, which diffusion models are trained on, in sets: Var[z] = Var[mean] + E[variance]."""
        return self.sets.widened(self.variance)

    @property
    def noise(self) -> Array:
        """c: mean variance of the posteriors."""
        return np.average(self.variance, axis=0, weights=self.sets.count)

    @property
    def rate(self) -> Array | None:
        """c: 1/2 ln(1 + Var[mean] / E[variance]), nats per element; None where latents are points.

        The capacity of a channel with Gaussian noise (Shannon 1949): what its elements can say at most, told apart from
        what the noise makes.
        """
        if self.kl is None:
            return None
        return np.asarray(0.5 * np.log1p(self.total.std**2 / self.noise.clip(1e-30)))

    @property
    def share(self) -> Array:
        """c: variance of the means, as a multiple of the mean over channels."""
        variance = self.total.std**2
        mean = variance.mean()
        return np.asarray(variance / mean if mean > 0 else np.zeros_like(variance))

    @property
    def dead(self) -> Array:
        """c, true for channels that carry less than DEAD_NATS nats (by KL or rate, whichever is less), or less than
        DEAD_SHARE of the variance.

        Thresholds: training/monitor/watch_latents.py, which watches the same in training.
        """
        silent = self.share < DEAD_SHARE
        if self.kl is not None and self.rate is not None:
            silent |= np.minimum(self.kl.mean(0), self.rate) < DEAD_NATS
        return np.asarray(silent)


def measure_channels(subject: Subject, seen: bool = False) -> Channels:
    """One pass over all latents. seen: as a diffusion model sees them, normalized, with latents_patch's channels."""
    gathering = Gathering()
    variances, kls, lows, highs = [], [], [], []
    parts = zip(
        subject.parts(subject.mean),
        subject.parts(subject.mean if subject.logvar is None else subject.logvar),
        strict=True,
    )
    for mean, logvar in parts:
        posterior = None if subject.is_point else Posterior.of(mean.double(), logvar.double())
        var = torch.zeros_like(mean, dtype=torch.float64) if posterior is None else posterior.var
        if seen:
            mean, var = _normalized(subject, mean, var)
        elif posterior is not None:
            kls.append(posterior.kl().mean((2, 3)))
        gathering.add(mean)
        variances.append(var.mean((2, 3)))
        lows.append(mean.amin((0, 2, 3)))
        highs.append(mean.amax((0, 2, 3)))
    sets, rows = gathering.sets, torch.cat(variances).numpy()
    g = len(sets.count)
    return Channels(
        sets,
        np.stack([rows[i::g].mean(0) for i in range(g)]),
        torch.cat(kls).numpy() if kls else None,
        torch.stack(lows).amin(0).double().numpy(),
        torch.stack(highs).amax(0).double().numpy(),
    )


def _normalized(subject: Subject, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    vae, patch = subject.autoencoder, subject.autoencoder.config.latents_patch
    ones = torch.ones_like(mean[:1], device=vae.device)
    scale = (vae.normalize(ones) - vae.normalize(0 * ones)).double().cpu()
    return vae.normalize(mean.to(vae.device)).cpu(), (F.pixel_unshuffle(var, patch) if patch > 1 else var) * scale**2


def standardization(channels: Channels) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Numbers of the channels that carry something (of all, where none does), and their mean and standard deviation: c
    1 1, float32.

    A dead channel's rounding errors would count as much as any other channel, once divided by their standard deviation.
    """
    total, alive = channels.total, np.flatnonzero(np.logical_not(channels.dead))
    numbers: list[int] = alive.tolist() or list(range(len(channels.dead)))
    mean, std = (torch.from_numpy(x[numbers]).float()[:, None, None] for x in (total.mean[0], total.std.clip(1e-12)))
    return numbers, mean, std


def bits(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2.0)
