"""The autoencoder: images to a distribution over latents, latents to images, and the normalization between them
and a diffusion model."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import torch
from torch import Tensor, nn

from ..config import MODELS, AutoencoderConfig
from ..errors import ConfigError
from ..images import check_divisible, crop_to, pad_to_multiple
from .decoder import Decoder
from .encoder import Encoder
from .posterior import Posterior


class Autoencoder(nn.Module):
    """A variational autoencoder of the KL-f8 family (Rombach et al. 2021, arXiv 2112.10752)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        c = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.post_quant_conv else nn.Identity()

    def encode(self, images: Tensor, *, pad: bool = False) -> Posterior:
        """The posterior of images n 3 h w in [-1,1]; its latents are n c h/f w/f, unnormalized.

        pad: repeat the last row and column until height and width are multiples of f.
        Errors: ConfigError (a ValueError) for a size that is no multiple of f, or for wrong channels.
        """
        if images.ndim != 4 or images.shape[1] != self.config.in_channels:
            raise ConfigError(f"images must have shape n {self.config.in_channels} h w, not {tuple(images.shape)}")
        if pad:
            images = pad_to_multiple(images, self.config.downsample_factor)
        check_divisible(images.shape[-2], images.shape[-1], self.config.downsample_factor)
        moments = self.quant_conv(self.encoder(images))
        # autocast leaves them in half precision, in which the KL of a small variance is wrong by percents
        return Posterior(moments.float() if torch.is_autocast_enabled(moments.device.type) else moments)

    def decode(self, latents: Tensor) -> Tensor:
        """Images n 3 f*h f*w, about in [-1,1] (not clamped), from unnormalized latents n c h w.

        Errors: ConfigError for latents of another number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise ConfigError(
                f"latents must have shape n {self.config.latent_channels} h w, not {tuple(latents.shape)}; "
                f"they come from a VAE with another number of latent channels"
            )
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Reconstructions n 3 h w of posterior samples, and the posterior: what a training step needs.

        noise: standard normal, n c h/f w/f; None decodes the posterior's mode.
        """
        posterior = self.encode(images)
        latents = posterior.mode() if noise is None else posterior.sample(noise=noise)
        return self.decode(latents), posterior

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images n 3 h w in [-1,1] of any size, through the posterior's mode and back to n 3 h w, clamped to [-1,1]."""
        recon = self.decode(self.encode(images, pad=True).mode())
        return crop_to(recon, images.shape[-2], images.shape[-1]).clamp(-1, 1)

    def normalize(self, latents: Tensor) -> Tensor:
        """What a diffusion model sees, n c h w to n c h w: (latents - shift) * scale.

        With normalization "channel" the channel's mean is the shift and scaling_factor / std the scale.
        """
        shift, scale = self._affine(latents)
        return (latents - shift) * scale

    def denormalize(self, z: Tensor) -> Tensor:
        """From what a diffusion model makes back to the latents that `decode` takes: z / scale + shift."""
        shift, scale = self._affine(z)
        return z / scale + shift

    def _affine(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        config = self.config
        if config.normalization == "scalar":
            return config.shift_factor, config.scaling_factor
        assert config.latents_mean is not None and config.latents_std is not None  # AutoencoderConfig checks it
        mean = torch.tensor(config.latents_mean, dtype=like.dtype, device=like.device)[:, None, None]
        std = torch.tensor(config.latents_std, dtype=like.dtype, device=like.device)[:, None, None]
        return mean, config.scaling_factor / std

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass of training mode: less memory, about a third more time."""
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = on

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
        """How many numbers the network holds."""
        return sum(p.numel() for p in self.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.decoder.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.conv_in.weight.device


def build(model: str | AutoencoderConfig, **overrides: Any) -> Autoencoder:
    """An autoencoder with random weights: `build("sd1")`, `build("sd1", latent_channels=16)`, `build(config)`.

    Errors: ConfigError for an unknown name or a setting that breaks a rule.
    """
    if isinstance(model, str):
        if model not in MODELS:
            near = difflib.get_close_matches(model, MODELS, n=1)
            raise ConfigError(
                f"unknown model {model!r}" + (f", did you mean {near[0]!r}?" if near else "") + f" Known: {', '.join(MODELS)}"
            )
        model = MODELS[model]
    return Autoencoder(dataclasses.replace(model, **overrides))
