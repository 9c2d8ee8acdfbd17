"""VAEs whose latent spaces are related in a known way, and images to see it with. For tests of `painting`."""

from __future__ import annotations

import copy
import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

import vaeworks as vw
from vaeworks.config import AutoencoderConfig

LEVELS = {2: (1, 2), 4: (1, 1, 2), 8: (1, 1, 2, 2), 16: (1, 1, 1, 2, 2)}


def images(count: int = 24, size: int = 64, seed: int = 0) -> Tensor:
    """Noise of several scales: uint8 n 3 s s."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.randn(count, 3, size // step, size // step, generator=generator), size, mode="bicubic")
        for step in (2, 4, 16)
    ]
    return (torch.stack(layers).sum(0) * 40 + 128).clamp(0, 255).to(torch.uint8)


def random_vae(c: int, f: int = 8, seed: int = 0, **options: object) -> vw.Autoencoder:
    """Random weights, with latents of mean 0 and variance 1 in all channels together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoencoderConfig(
            channels=16, channel_mult=LEVELS[f], num_res_blocks=1, norm_groups=8, latent_channels=c, **options
        )  # type: ignore[arg-type]
        vae = vw.build(config).requires_grad_(False).eval()
    whitened = whitening(raw_latents(vae))
    return moved(vae, *whitened) if vae.config.quant_conv else vae


def raw_latents(vae: vw.Autoencoder) -> Tensor:
    return vae.encode(images(8, seed=9).float() / 127.5 - 1).mode()


def whitening(latents: Tensor) -> tuple[Tensor, Tensor]:
    """(matrix, offset) after which channels have mean 0 and covariance 1."""
    vectors = latents.double().movedim(1, 0).flatten(1)
    values, axes = torch.linalg.eigh(vectors.cov())
    matrix = axes @ (values.rsqrt().diag()) @ axes.T
    return matrix, -matrix @ vectors.mean(1)


def moved(vae: vw.Autoencoder, matrix: Tensor, offset: Tensor | None = None) -> vw.Autoencoder:
    """The same images, with latents matrix @ latents + offset at every position, and a scale of 1."""
    result = copy.deepcopy(vae)
    c, matrix = vae.latent_channels, matrix.double()
    offset = torch.zeros(c, dtype=torch.float64) if offset is None else offset.double()
    first, last = result.quant_conv, result.post_quant_conv
    weight, bias = first.weight[:c].double().flatten(1), first.bias[:c].double()
    first.weight[:c] = (matrix @ weight)[:, :, None, None].float()
    first.bias[:c] = (matrix @ bias + offset).float()
    weight, inverse = last.weight.double().flatten(1), torch.linalg.inv(matrix)
    last.bias += (-weight @ inverse @ offset).float()
    last.weight.copy_((weight @ inverse)[:, :, None, None])
    result.config = dataclasses.replace(vae.config, scaling_factor=1.0, shift_factor=0.0)
    return result


def rotation(c: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(c, c, generator=generator, dtype=torch.float64))[0]


def mixing(c: int, seed: int = 0) -> Tensor:
    """An invertible matrix that permutes, rotates and scales channels."""
    order = torch.randperm(c, generator=torch.Generator().manual_seed(seed))
    scales = torch.linspace(0.5, 2.0, c, dtype=torch.float64)
    return rotation(c, seed) @ scales.diag() @ torch.eye(c, dtype=torch.float64)[order]
