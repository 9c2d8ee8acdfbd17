"""Adapter: the interface of diffusers' VAEs around a network that none of diffusers' classes has."""

from __future__ import annotations

import copy

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

from ..config import AutoencoderConfig
from ..models import Autoencoder
from .diffusers_config import FLUX2_PATCH
from .fold import channel_affine


class AutoencoderAdapter(ModelMixin, ConfigMixin):
    """The parts of a VAE that pipelines use: encode, decode, config, and for Flux.2 `bn`, the statistics of latents in
    2x2 patches."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (64,),
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        batch_norm_eps: float = 0.0,
        force_upcast: bool = False,
    ):
        super().__init__()
        self.autoencoder: Autoencoder = nn.Identity()  # type: ignore[assignment]  # set by `adapted`
        self.bn = nn.BatchNorm2d(FLUX2_PATCH**2 * latent_channels, eps=batch_norm_eps, affine=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | AutoencoderTinyOutput | tuple:
        """Encode images n 3 h w in [-1,1] to a distribution of latents, or to latents if there is no distribution."""
        posterior = self.autoencoder.encode(x)
        output: AutoencoderKLOutput | AutoencoderTinyOutput
        if posterior.is_point:
            output = AutoencoderTinyOutput(latents=posterior.mode())
        else:
            output = AutoencoderKLOutput(
                DiagonalGaussianDistribution(torch.cat([posterior.mean, posterior.logvar], dim=1))
            )
        return output if return_dict else output.to_tuple()

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple:
        """Decode latents n c h w to images n 3 f*h f*w."""
        output = DecoderOutput(sample=self.autoencoder.decode(z))
        return output if return_dict else output.to_tuple()


def adapted(autoencoder: Autoencoder) -> AutoencoderAdapter:
    """An adapter for a VAE of any architecture, with a copy of its weights."""
    config = autoencoder.config
    per_channel = config.normalization == "channel"
    levels = len(config.widths) if isinstance(config, AutoencoderConfig) else len(config.decoder_widths)
    adapter = AutoencoderAdapter(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        block_out_channels=(1,) * levels,  # pipelines compute f from their number
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor,
        latents_mean=config.latents_mean if per_channel else None,
        latents_std=config.latents_std if per_channel else None,
        batch_norm_eps=config.latents_norm_eps if config.normalization == "batchnorm" else 0.0,
    )
    adapter.autoencoder = copy.deepcopy(autoencoder)
    if config.normalization == "batchnorm":
        adapter.bn.load_state_dict(autoencoder.bn.state_dict())
    else:
        mean, gain = (values.repeat_interleave(FLUX2_PATCH**2).float() for values in channel_affine(config))
        adapter.bn.running_mean, adapter.bn.running_var = mean, gain.reciprocal().square()
    adapter.bn.to(autoencoder.dtype)
    return adapter.requires_grad_(False).eval()
