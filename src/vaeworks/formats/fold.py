"""The normalization of latents, moved into the weights."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from ..config import LatentConfig
from ..errors import ConfigError
from ..models import Autoencoder


def fold_normalization(autoencoder: Autoencoder) -> Autoencoder:
    """The same VAE with latents that need its scaling_factor only: no shift, no channel statistics."""
    return _folded(autoencoder, autoencoder.config.scaling_factor, 0.0)


def fold_to(autoencoder: Autoencoder, scaling_factor: float, shift_factor: float = 0.0) -> Autoencoder:
    """The same VAE with latents that these two numbers normalize, for programs that hard-code them.

    A diffusion model sees the same z: (new latents - shift_factor) * scaling_factor = normalize(latents). The outermost
    1x1 convolutions apply the difference; where they are absent they are added, because a shift in `decoder.conv_in`
    would be wrong at the borders, which it pads with zeros. Exact, but for a log-variance at the ends of its clamp.
    Errors: ConfigError for a TAESD, for normalization "batchnorm", for a scaling_factor of 0, and where the model's own
    is a guess.
    """
    if not autoencoder.config.normalization_known:
        raise ConfigError(
            "this VAE's file does not say how its latents are scaled, and what it is folded from must be known: "
            "load(FILE, scale_of=...) or scaling_factor=... says it"
        )
    return _folded(autoencoder, scaling_factor, shift_factor)


def _folded(autoencoder: Autoencoder, scaling_factor: float, shift_factor: float) -> Autoencoder:
    config = autoencoder.kl_config
    # checks the two numbers as well
    target = dataclasses.replace(
        config,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        normalization="scalar",
        latents_mean=None,
        latents_std=None,
    )
    if config.normalization == "batchnorm":
        raise ConfigError(
            "batch normalization's statistics differ within a 2x2 square of latents, which a 1x1 convolution cannot do"
        )
    if config.bottleneck.bound != "none":
        raise ConfigError(
            f"latents are bounded by {config.bottleneck.bound} behind all weights, which therefore cannot change their "
            "scale"
        )
    mean, gain = channel_affine(config)
    gain = gain / scaling_factor  # new latents = latents * gain + offset
    offset = shift_factor - mean * gain
    folded = copy.deepcopy(autoencoder)
    c, like = config.latent_channels, next(autoencoder.parameters())
    if not config.post_quant_conv:
        folded.quant_conv = folded.quant_conv if config.quant_conv else _identity(config.moment_channels, like)
        folded.post_quant_conv = _identity(c, like)
        target = dataclasses.replace(target, quant_conv=True, post_quant_conv=True)
    if config.latents_mean is not None and config.latents_std is not None:  # measured: they move along
        means, stds = (
            torch.tensor(values, dtype=torch.float64) for values in (config.latents_mean, config.latents_std)
        )
        means, stds = means * gain + offset, stds * gain.abs()
        target = dataclasses.replace(target, latents_mean=tuple(means.tolist()), latents_std=tuple(stds.tolist()))
    folded.config = target
    last = folded.quant_conv if target.quant_conv else folded.encoder.conv_out
    first = folded.post_quant_conv
    assert isinstance(last, nn.Conv2d) and isinstance(first, nn.Conv2d)
    if config.bottleneck.kind == "kl":  # means, then log-variances
        _scale_output(last, torch.cat([gain, torch.ones_like(gain)]), torch.cat([offset, 2 * gain.abs().log()]))
    else:
        _scale_output(last, gain, offset)
    _scale_input(first, 1 / gain, -offset / gain)
    return folded


def channel_affine(config: LatentConfig) -> tuple[Tensor, Tensor]:
    """(mean, gain) by channel, with which z = (latents - mean) * gain; for normalization "scalar" and "channel"."""
    if config.normalization == "scalar":
        full = torch.ones(config.latent_channels, dtype=torch.float64)
        return full * config.shift_factor, full * config.scaling_factor
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (config.latents_mean, config.latents_std))
    return mean, config.scaling_factor / std


def _identity(channels: int, like: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1, device="meta")
    weight, bias = torch.eye(channels)[:, :, None, None].to(like), torch.zeros(channels).to(like)
    conv.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return conv


@torch.no_grad()
def _scale_output(conv: nn.Conv2d, gain: Tensor, offset: Tensor) -> None:
    """Make a convolution's output y become y * gain + offset, by channel."""
    assert conv.bias is not None
    weight, bias = conv.weight.cpu().double(), conv.bias.cpu().double()
    conv.weight.copy_(weight * gain[:, None, None, None])
    conv.bias.copy_(bias * gain + offset)


@torch.no_grad()
def _scale_input(conv: nn.Conv2d, gain: Tensor, offset: Tensor) -> None:
    """Make a 1x1 convolution see x * gain + offset, by channel, instead of x."""
    assert conv.bias is not None
    weight, bias = conv.weight.cpu().double(), conv.bias.cpu().double()
    conv.bias.copy_(bias + weight.flatten(1) @ offset)
    conv.weight.copy_(weight * gain[:, None, None])  # last: in float64, `weight` is the same memory
