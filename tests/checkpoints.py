"""Full checkpoints for tests: a small VAE, and as little of a diffusion model around it as tells which it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import vaeworks as vw
from vaeworks.config import AutoencoderConfig, TinyConfig
from vaeworks.formats.io import stored_tensors

F8C4 = AutoencoderConfig(channels=8, channel_mult=(1, 1, 1, 2), num_res_blocks=1, norm_groups=4, scaling_factor=0.18215)


FIRST_STAGE = "first_stage_model."


def random_vae(config: AutoencoderConfig | TinyConfig = F8C4, seed: int = 0) -> vw.Autoencoder:
    vae = vw.build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return vae


def saved(path: Path, config: AutoencoderConfig | TinyConfig = F8C4, layout: str = "ldm", seed: int = 0) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what other programs will not see
        vw.save(random_vae(config, seed), path, layout)
    return path


def ldm_tensors(
    config: AutoencoderConfig = F8C4, seed: int = 0, dtype: torch.dtype = torch.float16
) -> dict[str, Tensor]:
    return {name: t.detach().to(dtype) for name, t in stored_tensors(random_vae(config, seed), "ldm").items()}


def denoiser(context: int = 768) -> dict[str, Tensor]:
    """As little of an SD 1 (768) or SDXL (2048) checkpoint as tells which it is, with every dtype that is met in the
    wild."""
    unet = "model.diffusion_model."
    generator = torch.Generator().manual_seed(7)
    return {
        unet + "input_blocks.0.0.weight": torch.randn(8, 4, 3, 3, generator=generator).half(),
        unet + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.randn(
            8, context, generator=generator
        ).bfloat16(),
        unet + "out.2.weight": torch.randn(4, 8, 3, 3, generator=generator).to(torch.float8_e4m3fn),
        unet + "odd": torch.arange(5, dtype=torch.uint8),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.tensor(4.6052),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(3, dtype=torch.int32),
        "empty": torch.zeros(0, 3),
        "alphas_cumprod": torch.linspace(1, 0, 10, dtype=torch.float64),
    }


METADATA = {
    "format": "pt",
    "modelspec.title": "a model",
    "modelspec.hash_sha256": "0xabc",
    "sshs_model_hash": "1",
    "sshs_legacy_hash": "2",
}


def checkpoint(path: Path, vae: dict[str, Tensor] | None = None, prefix: str = FIRST_STAGE, **options: int) -> Path:
    inside = ldm_tensors() if vae is None else vae
    save_file(
        denoiser(**options) | {prefix + name: t.contiguous() for name, t in inside.items()}, path, metadata=METADATA
    )
    return path
