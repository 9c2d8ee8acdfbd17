"""Fold: move the normalization of latents into the weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config import MODELS, LatentConfig
from ..errors import ConfigError
from ..files.atomic import check_ending, check_free_name
from ..models import Autoencoder
from .io import read, write
from .locate import Located, locate
from .shared_weights import in_memory
from .vaes_in_file import Layout

if TYPE_CHECKING:
    from .shared_weights import TheirVAE


@dataclass(frozen=True)
class FoldedVae:
    """What `fold` made."""

    autoencoder: Autoencoder = field(repr=False)
    """the VAE with the new normalization"""
    out: str | None
    """the file or folder that was written"""
    layout: Layout
    before: str
    """the old normalization, in words"""
    scaling_factor: float
    shift_factor: float
    added_quant_convs: bool
    """whether quant_conv and post_quant_conv were added to carry the difference"""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": self.out,
            "scaling_factor": self.scaling_factor,
            "shift_factor": self.shift_factor,
            "added_quant_convs": self.added_quant_convs,
        }


def fold(
    model: str | Path | Autoencoder | TheirVAE,
    dst: str | Path | None = None,
    *,
    scaling_factor: float | None = None,
    shift_factor: float = 0.0,
    like: str | None = None,
    layout: Layout = "ldm",
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> FoldedVae:
    """Move the normalization of latents into the weights, for programs that hard-code their own two numbers.

    >>> vw.fold("vae.safetensors", "folded.safetensors", like="sd1").scaling_factor
    0.18215

    model: an Autoencoder, or the path or hub id of one. dst: the file (layout "diffusers": the folder) to write; None
    writes nothing. scaling_factor, shift_factor: the numbers that the program uses. like: take both from this published
    model, such as "sdxl". settings: facts that the file leaves out, as keywords of `load`.
    Errors: those of `load` and `fold_to`; ConfigError for a scale that is unknown, for a VAE with latents of another
    shape than `like`'s and, without `overwrite`, for a name that is taken.
    """
    if (scaling_factor is None) == (like is None):
        raise ConfigError("give either --scaling-factor (and --shift-factor) or --for MODEL")
    if like is not None and like not in MODELS:
        raise ConfigError(f"unknown model {like!r}; known: {', '.join(MODELS)}")
    published = None if like is None else MODELS[like]
    if published is not None:
        scaling_factor, shift_factor = published.scaling_factor, published.shift_factor
    assert scaling_factor is not None
    known = in_memory(model)
    vae: Autoencoder | Located = known if known is not None else locate(str(model), **(settings or {}))
    config = vae.config
    if published is not None and published.name != config.name:
        raise ConfigError(f"{like} is {published.name}, this VAE {config.name}: no scale makes it fit")
    if dst is not None:
        if layout != "diffusers":
            check_ending(Path(dst))
        check_free_name(Path(dst), overwrite)
    vae = vae if isinstance(vae, Autoencoder) else _certain(vae)
    folded = fold_to(vae, scaling_factor, shift_factor)
    if dst is not None:
        write(folded, dst, layout, overwrite=overwrite)
    return FoldedVae(
        folded,
        None if dst is None else str(dst),
        layout,
        before="latents_mean and latents_std"
        if config.normalization == "channel"
        else f"scaling_factor {config.scaling_factor:g}, shift_factor {config.shift_factor:g}",
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        added_quant_convs=folded.kl_config.post_quant_conv and not vae.kl_config.post_quant_conv,
    )


def _certain(located: Located) -> Autoencoder:
    """The VAE of a file that says how its latents are scaled.

    Errors: ConfigError for a file that does not say it.
    """
    if located.ambiguity:
        raise ConfigError(f"{located.path}: {located.ambiguity}; fold needs the scale that the VAE has now")
    return read(located)


def fold_normalization(autoencoder: Autoencoder) -> Autoencoder:
    """The same VAE with latents that need only its scaling_factor: no shift, no channel statistics."""
    return _folded(autoencoder, autoencoder.config.scaling_factor, 0.0)


def fold_to(autoencoder: Autoencoder, scaling_factor: float, shift_factor: float = 0.0) -> Autoencoder:
    """The same VAE with weights changed so that these two numbers normalize its latents.

    A diffusion model sees the same z: (new latents - shift_factor) * scaling_factor = normalize(latents). The outermost
    1x1 convolutions apply the difference. They are added if absent, because a shift in `decoder.conv_in` would be wrong
    at the borders, which it pads with zeros. The result is exact, except for a log-variance at the ends of its clamp.
    Errors: ConfigError for a TAESD, for normalization "batchnorm", for a scaling_factor of 0, and for a model whose own
    scale is a guess.
    """
    if not autoencoder.config.normalization_known:
        raise ConfigError(
            "this VAE's file does not say how its latents are scaled, and fold needs that scale; give it as "
            "load(FILE, scale_of=...) or scaling_factor=..."
        )
    return _folded(autoencoder, scaling_factor, shift_factor)


def _folded(autoencoder: Autoencoder, scaling_factor: float, shift_factor: float) -> Autoencoder:
    config = autoencoder.kl_config
    # it also checks the two numbers
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
            "batch normalization differs within a 2x2 square of latents, and a 1x1 convolution cannot express that"
        )
    if config.bottleneck.bound != "none":
        raise ConfigError(
            f"latents are bounded by {config.bottleneck.bound} after all weights, so weights cannot change their scale"
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
    if config.latents_mean is not None and config.latents_std is not None:  # measured statistics follow the latents
        means, stds = (
            torch.tensor(values, dtype=torch.float64) for values in (config.latents_mean, config.latents_std)
        )
        means, stds = means * gain + offset, stds * gain.abs()
        target = dataclasses.replace(target, latents_mean=tuple(means.tolist()), latents_std=tuple(stds.tolist()))
    folded.restate(target)
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
    """(mean, gain) by channel of z = (latents - mean) * gain; for normalization "scalar" and "channel"."""
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
