"""Statistics of a trained model's latents, from which its scaling factor follows."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F

from ..config import LatentConfig
from ..data import CropSource, batches
from ..images import to_model_range
from ..models import Autoencoder
from ..reporting import Progress

LEAST = 1e-6
"""Smallest standard deviation of a channel as a share of that of all channels; fp32 resolves no smaller differences."""

Config = TypeVar("Config", bound=LatentConfig)


@dataclass(frozen=True)
class LatentStats:
    """Moments of posterior samples over a number of training crops."""

    num_images: int
    mean: tuple[float, ...]
    """per channel"""
    std: tuple[float, ...]
    """per channel"""
    scaling_factor: float
    """1 / standard deviation over all elements, about `shift_factor`; 1 where all are one number"""
    shift_factor: float
    """mean over all elements"""
    patch_mean: tuple[float, ...] = ()
    """per channel after `latents_patch`, where that is more than 1 or normalization is 'batchnorm'"""
    patch_std: tuple[float, ...] = ()

    def applied_to(self, config: Config) -> Config:
        """The configuration with these figures; with normalization "channel" the scale is 1."""
        channel = config.normalization == "channel"
        scale, shift = (1.0, 0.0) if channel else (self.scaling_factor, self.shift_factor)
        return config.with_facts(latents_mean=self.mean, latents_std=self.std, scaling_factor=scale, shift_factor=shift)

    def apply_(self, autoencoder: Autoencoder) -> None:
        """Set the autoencoder's normalization, of the kind that its configuration names, to these statistics."""
        if autoencoder.config.normalization == "batchnorm":
            running_mean, running_var = autoencoder.bn.running_mean, autoencoder.bn.running_var
            assert running_mean is not None and running_var is not None
            running_mean.copy_(torch.tensor(self.patch_mean, dtype=torch.float64))
            # epsilon will be added again; where it exceeds the variance, the variance becomes 0
            var = torch.tensor(self.patch_std, dtype=torch.float64).square() - autoencoder.config.latents_norm_eps
            running_var.copy_(var.clamp_min(0))
        else:
            autoencoder.config = self.applied_to(autoencoder.config)


@torch.inference_mode()
def measure_latents(
    autoencoder: Autoencoder,
    crops: CropSource,
    num_images: int,
    batch: int,
    progress: Progress = lambda done, total: None,
) -> LatentStats:
    """Mean and standard deviation of the latents of the first `num_images` training crops.

    The statistics are those of posterior samples, computed without sampling: Var[z] = Var[mean] + E[variance]. Latents
    that are the same everywhere get a warning: a diffusion model can learn nothing from them.
    """
    patch = autoencoder.config.latents_patch
    c = autoencoder.latent_channels * patch**2
    total, square, count = torch.zeros(c, dtype=torch.float64), torch.zeros(c, dtype=torch.float64), 0
    wanted = num_images - num_images % batch or batch
    for images, _ in batches(crops, 0, wanted, batch, workers=0):
        posterior = autoencoder.encode(to_model_range(images).to(autoencoder.device))
        mean, var = (F.pixel_unshuffle(x.double().cpu(), patch) for x in (posterior.mean, posterior.var))
        total += mean.sum(dim=(0, 2, 3))
        square += (mean.square() + var).sum(dim=(0, 2, 3))
        count += len(images)
        progress(count, wanted)
    first, second = (x / (count * mean[0, 0].numel()) for x in (total, square))
    channel_mean, channel_square = (x.view(-1, patch**2).mean(1) for x in (first, second))
    shift = channel_mean.mean()
    std = (channel_square.mean() - shift.square()).clamp_min(0).sqrt()
    if std <= LEAST * shift.abs() or std == 0:
        std = torch.ones_like(std)
    channel_var = channel_square - channel_mean.square()
    if (channel_var <= (LEAST * channel_mean).square()).all():
        warnings.warn(f"latents of {count} crops are the same everywhere: the encoder ignores its images", stacklevel=2)
    least = (LEAST * std) ** 2  # so that the std of a dead channel can be divided by
    channel_std = channel_var.clamp_min(least).sqrt()
    stats = LatentStats(count, tuple(channel_mean.tolist()), tuple(channel_std.tolist()), 1 / std.item(), shift.item())
    if patch == 1 and autoencoder.config.normalization != "batchnorm":
        return stats
    patch_std = (second - first.square()).clamp_min(least).sqrt()
    return dataclasses.replace(stats, patch_mean=tuple(first.tolist()), patch_std=tuple(patch_std.tolist()))
