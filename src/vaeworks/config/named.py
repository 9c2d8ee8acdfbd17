"""Architectures by name."""

from __future__ import annotations

import dataclasses

from .model import AutoencoderConfig, TinyConfig

_small = AutoencoderConfig(
    latent_channels=16,
    channels=16,
    channel_mult=(1, 2, 4, 8),
    num_res_blocks=1,
    norm_groups=4,
    mid_attention=False,
    quant_conv=False,
    post_quant_conv=False,
)
_f16 = AutoencoderConfig(latent_channels=16, channel_mult=(1, 1, 2, 2, 4), attention_factors=(16,))

MODELS: dict[str, AutoencoderConfig] = {
    # Stable Diffusion and its successors; constants as published with the weights
    "sd1": AutoencoderConfig(scaling_factor=0.18215),
    "sd2": AutoencoderConfig(scaling_factor=0.18215),
    "sdxl": AutoencoderConfig(scaling_factor=0.13025),
    "sd3": AutoencoderConfig(
        latent_channels=16, quant_conv=False, post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609
    ),
    "flux1": AutoencoderConfig(
        latent_channels=16, quant_conv=False, post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
    ),
    "flux2": AutoencoderConfig(latent_channels=32, normalization="batchnorm", latents_patch=2),
    "sd-x4-upscaler": AutoencoderConfig(channel_mult=(1, 2, 4), scaling_factor=0.08333),
    # the latent diffusion paper's four (arXiv 2112.10752)
    "ldm-f4": AutoencoderConfig(latent_channels=3, channel_mult=(1, 2, 4)),
    "ldm-f8": AutoencoderConfig(),
    "ldm-f16": _f16,
    "ldm-f32": AutoencoderConfig(latent_channels=64, channel_mult=(1, 1, 2, 2, 4, 4), attention_factors=(16, 32)),
    # small ones that train on a laptop
    "small-f8c16": _small,
    "small-f8c4": dataclasses.replace(_small, latent_channels=4),
    "small-f4c4": dataclasses.replace(_small, latent_channels=4, channels=32, channel_mult=(1, 2, 4)),
}
"""Architectures by name, for `build`."""

TINY_MODELS: dict[str, TinyConfig] = {
    "taesd": TinyConfig(),
    "taesd3": TinyConfig(latent_channels=16),
    "taef1": TinyConfig(latent_channels=16),
    "taef2": TinyConfig(latent_channels=32, latents_patch=2, mid_pool=True),
    "taesana": TinyConfig(
        latent_channels=32, stem=(32, 64), decoder_widths=(64, 64, 64, 64, 128, 256), decoder_blocks=(1, 3, 3, 3, 3, 3)
    ),
}
"""Small distilled decoders by name, for `build`. Those for SDXL have the architecture of `taesd`."""
