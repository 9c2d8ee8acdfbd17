"""The autoencoder: it encodes images, decodes latents, and normalizes latents for a diffusion model."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import (
    MODELS,
    OPEN,
    TINY_MODELS,
    AutoencoderConfig,
    LatentConfig,
    TinyConfig,
    built_in,
    setting,
)
from ..errors import ConfigError
from ..images import check_divisible, check_images, clamped, crop_to, pad_to_multiple, warn_of_range
from .bottleneck import bounded
from .decoder import Decoder
from .encoder import Encoder
from .posterior import Posterior
from .tiny import TinyDecoder, TinyEncoder

SETTINGS = frozenset(field.name for kind in (AutoencoderConfig, TinyConfig) for field in dataclasses.fields(kind))
"""Names of all settings."""


class Autoencoder(nn.Module):
    """An autoencoder for latent diffusion, of the KL family (Rombach et al. 2021, arXiv 2112.10752) or of TAESD's.

    f is the factor between the sides of images and latents, c the number of latent channels.

    >>> posterior = vae.encode(vw.open_image("dog.jpg", size=512))
    >>> images = vae.decode(posterior.sample())
    """

    def __init__(self, config: AutoencoderConfig | TinyConfig):
        super().__init__()
        self._config = config
        self.trained_on: Any = None
        """which images it was trained on (data/trained_on.py), as far as its file says"""
        c = config.latent_channels
        self.encoder: Encoder | TinyEncoder
        self.decoder: Decoder | TinyDecoder
        self.encoder, self.decoder = _halves(config)
        m = config.moment_channels if isinstance(config, AutoencoderConfig) else c
        self.quant_conv = (
            nn.Conv2d(m, m, 1) if isinstance(config, AutoencoderConfig) and config.quant_conv else nn.Identity()
        )
        self.post_quant_conv = (
            nn.Conv2d(c, c, 1) if isinstance(config, AutoencoderConfig) and config.post_quant_conv else nn.Identity()
        )
        if isinstance(config, AutoencoderConfig):
            for conv in self.modules():
                if isinstance(conv, nn.Conv2d) and conv.padding != (0, 0):
                    conv.padding_mode = config.padding_mode
        if config.normalization == "batchnorm":
            self.bn = nn.BatchNorm2d(c * config.latents_patch**2, eps=config.latents_norm_eps, affine=False)

    @property
    def config(self) -> AutoencoderConfig | TinyConfig:
        """The architecture, and how a diffusion model sees the latents. Facts about the latents can be replaced.

        >>> vae.config = dataclasses.replace(vae.config, scaling_factor=0.13025)

        Errors: ConfigError for another value of a setting that the network was built with, which would change nothing.
        """
        return self._config

    @config.setter
    def config(self, config: AutoencoderConfig | TinyConfig) -> None:
        if type(config) is not type(self._config):
            raise ConfigError(
                f"config must stay of its kind, {type(self._config).__name__}, and cannot become "
                f"{type(config).__name__}; build another network: vw.build(config)"
            )
        if (name := built_in(self._config, config)) is not None:
            before, after = setting(self._config, name), setting(config, name)
            remedy = (
                f"load the file with it: vw.load(PATH, {name}={after!r})"
                if name in OPEN
                else "build another network: vw.build(config)"
            )
            raise ConfigError(
                f"{name} (={after!r}) cannot change after the network was built with {before!r}; {remedy}"
            )
        self._config = config

    def restate(self, config: AutoencoderConfig | TinyConfig) -> None:
        """State the configuration of a network whose modules were changed to it: by `fold`, and by repairs."""
        self._config = config

    def __setattr__(self, name: str, value: Any) -> None:
        """Errors: ConfigError for the name of a setting, because the attribute would change nothing."""
        if name in SETTINGS and not isinstance(value, nn.Module):
            raise ConfigError(
                f"{name} is a setting of the configuration; vae.config = "
                f"dataclasses.replace(vae.config, {name}={value!r}) sets it"
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """One line about the model, and PyTorch's tree of its modules."""
        dtype = str(self.dtype).removeprefix("torch.")
        numbers = f"{self.num_parameters:,} parameters, {scale_words(self.config)}"
        return f"{self.config.name} autoencoder: {numbers}, {dtype} on {self.device}\n{super().__repr__()}"

    def encode(self, images: Tensor, *, pad: bool = False) -> Posterior:
        """The posterior of images n 3 h w in [-1,1]; its latents are n c h/f w/f, unnormalized.

        pad: repeat the last row and column until height and width are multiples of f.
        Errors: ConfigError (a ValueError) for a size that is no multiple of f, and for another type, layout or number
        of channels. Floats on the CPU that look like [0,1] or [0,255] get a warning.
        """
        check_images(images, self.config.in_channels)
        self._check_dtype(images, "images")
        warn_of_range(images)
        if pad:
            images = pad_to_multiple(images, self.config.downsample_factor)
        check_divisible(images.shape[-2], images.shape[-1], self.config.downsample_factor)
        moments = self.quant_conv(self.encoder(images))
        if isinstance(self.encoder, TinyEncoder):
            return Posterior.point(moments)
        return self.posterior(moments)

    def posterior(self, moments: Tensor) -> Posterior:
        """The posterior of a KL autoencoder's moments, taken after quant_conv: a Gaussian, or a bounded point."""
        # autocast leaves them in half precision, in which the KL of a small variance is wrong by percents
        moments = moments.float() if torch.is_autocast_enabled(moments.device.type) else moments
        bottleneck = self.kl_config.bottleneck
        return Posterior(moments) if bottleneck.kind == "kl" else Posterior.point(bounded(moments, bottleneck))

    def decode(self, latents: Tensor) -> Tensor:
        """Images n 3 f*h f*w, about in [-1,1] (not clamped), from unnormalized latents n c h w.

        Errors: ConfigError for latents of another number of channels.
        """
        check_latents(latents, self.config.latent_channels)
        self._check_dtype(latents, "latents")
        return self.decoder(self.post_quant_conv(latents))

    def _check_dtype(self, given: Tensor, what: str) -> None:
        """Errors: ConfigError for another precision than that of the weights, unless autocast converts it."""
        if given.dtype != self.dtype and not torch.is_autocast_enabled(given.device.type):
            theirs, ours = (str(dtype).removeprefix("torch.") for dtype in (given.dtype, self.dtype))
            raise ConfigError(f"{what} are {theirs} and the weights {ours}; convert one of them: {what}.to(vae.dtype)")

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstructions n 3 h w of posterior samples, and the posterior: what a training step needs.

        noise: standard normal, n c h/f w/f; None decodes the posterior's mode.
        """
        posterior = self.encode(images)
        latents = posterior.mode() if noise is None else posterior.sample(noise=noise)
        return self.decode(latents), posterior

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1] of any size, through the posterior's mode and back to n 3 h w, clamped to [-1,1]."""
        check_images(images, self.config.in_channels)
        warn_of_range(images)
        recon = self.decode(self.encode(images, pad=True).mode())
        return clamped(crop_to(recon, images.shape[-2], images.shape[-1]))

    def normalize(self, latents: Tensor) -> Tensor:
        """The z of a diffusion model: (latents - shift) * scale, n c h w to n c h w.

        normalization "scalar": shift_factor and scaling_factor; "channel": the channel's mean, and scaling_factor /
        std; "batchnorm": mean and 1 / std of batch normalization's running statistics. With latents_patch p, the result
        is n p*p*c h/p w/p: the latents of every p x p square become channels first.
        Errors: ConfigError for latents whose sides are no multiples of p, and for a posterior.
        """
        _check_tensor(latents)
        p = self.config.latents_patch
        if p > 1:
            check_divisible(
                latents.shape[-2] * self.downsample_factor,
                latents.shape[-1] * self.downsample_factor,
                p * self.downsample_factor,
            )
            latents = F.pixel_unshuffle(latents, p)
        shift, scale = self._affine(latents)
        return (latents - shift) * scale

    def denormalize(self, z: Tensor) -> Tensor:
        """The latents that `decode` takes, from a diffusion model's z: z / scale + shift, n c h w."""
        _check_tensor(z)
        shift, scale = self._affine(z)
        latents = z / scale + shift
        return F.pixel_shuffle(latents, self.config.latents_patch) if self.config.latents_patch > 1 else latents

    def _affine(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        config = self.config
        if config.normalization == "scalar":
            return config.shift_factor, config.scaling_factor
        if config.normalization == "batchnorm":
            assert self.bn.running_mean is not None and self.bn.running_var is not None  # they are tracked
            std = (self.bn.running_var + config.latents_norm_eps).sqrt()
            return self.bn.running_mean.to(like)[:, None, None], std.to(like).reciprocal()[:, None, None]
        mean, std = (
            torch.tensor(v, dtype=like.dtype, device=like.device)[:, None, None]
            for v in (config.latents_mean, config.latents_std)
        )
        repeats = config.latents_patch**2
        return mean.repeat_interleave(repeats, 0), (config.scaling_factor / std).repeat_interleave(repeats, 0)

    @property
    def kl_config(self) -> AutoencoderConfig:
        """The configuration of a KL autoencoder.

        Errors: ConfigError for a member of the TAESD family.
        """
        if isinstance(self.config, TinyConfig):
            raise ConfigError(
                "this is a TAESD, which has no posterior, no normalization layers and no scaling; use a KL autoencoder"
            )
        return self.config

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass of training mode: less memory, about a third more time."""
        for half in (self.encoder, self.decoder):
            if not isinstance(half, (TinyEncoder, TinyDecoder)):  # they are too small to need it
                half.gradient_checkpointing = on

    @property
    def downsample_factor(self) -> int:
        """f: image size / latent size."""
        return self.config.downsample_factor

    @property
    def latent_channels(self) -> int:
        """c: channels of the latents."""
        return self.config.latent_channels

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def _check_tensor(latents: Tensor) -> None:
    if not isinstance(latents, Tensor):
        raise ConfigError(f"latents must be a tensor, not {type(latents).__name__}; `encode(images).mode()` gives them")


def check_latents(latents: Tensor, channels: int) -> None:
    """Errors: ConfigError for what is no float tensor n c h w of so many channels. Values are not looked at."""
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        kind = latents.dtype if isinstance(latents, Tensor) else type(latents).__name__
        raise ConfigError(f"latents must be floats n {channels} h w, not {kind}; `encode(images).mode()` gives them")
    if latents.ndim == 4 and latents.shape[1] == channels:
        return
    remedy = "they come from a VAE with another number of latent channels"
    if latents.ndim == 3 and latents.shape[0] == channels:
        remedy = "they have no batch axis; give latents[None]"
    elif latents.ndim == 4 and latents.shape[-1] == channels:
        remedy = "their channels come last; permute them"
    raise ConfigError(f"latents must have shape n {channels} h w, not {tuple(latents.shape)}; {remedy}")


def scale_words(config: AutoencoderConfig | TinyConfig) -> str:
    """How a diffusion model sees the latents, in words."""
    if config.normalization == "batchnorm":
        return "latents normalized by batch statistics"
    if config.normalization == "channel":
        return "latents normalized by channel"
    shift = f", shift factor {config.shift_factor:g}" if config.shift_factor else ""
    return f"scaling factor {config.scaling_factor:g}{shift}" + ("" if config.normalization_known else " (a guess)")


def _halves(config: AutoencoderConfig | TinyConfig) -> tuple[Encoder, Decoder] | tuple[TinyEncoder, TinyDecoder]:
    if isinstance(config, TinyConfig):
        return TinyEncoder(config), TinyDecoder(config)
    return Encoder(config), Decoder(config)


def build(model: str | AutoencoderConfig | TinyConfig, **overrides: Any) -> Autoencoder:
    """Build an autoencoder with random weights.

    >>> vae = vw.build("sd1", latent_channels=16)
    >>> vae = vw.build(vw.AutoencoderConfig(channels=32, channel_mult=(1, 2, 4)))

    model: the name of a published architecture, such as "sd1", "sdxl", "sd3", "flux1" or "taesd", or a configuration.
    overrides: fields of the configuration to replace.
    Errors: ConfigError for an unknown name or a setting that breaks a rule.
    """
    if isinstance(model, str):
        known = MODELS | TINY_MODELS
        if model not in known:
            near = difflib.get_close_matches(model, known, n=1)
            raise ConfigError(
                f"unknown model {model!r}"
                + (f", did you mean {near[0]!r}?" if near else "")
                + f" Known: {', '.join(known)}"
            )
        model = known[model]
    if not isinstance(model, LatentConfig):
        raise ConfigError(
            f"build takes the name of a published model or a configuration, not {type(model).__name__}; "
            "`vaeworks.load` reads files"
        )
    return Autoencoder(dataclasses.replace(model, **overrides))
