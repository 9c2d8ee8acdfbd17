"""Bottlenecks besides the Gaussian posterior: bounds on latents, and noise on latents in training.

Sources: TAESD (soft clamp), DiTo arXiv 2501.18593 (LayerNorm), GAE (RMSNorm), Sphere-Encoder arXiv 2602.15030, l-DeTok
arXiv 2507.15856 (interpolated noise), RAE arXiv 2510.11690 (additive noise of a random level), LatentLM arXiv
2412.08635 (sigma-VAE), DC-AE 1.5 arXiv 2508.00413 (channel prefixes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import BottleneckConfig


def bounded(latents: Tensor, config: BottleneckConfig) -> Tensor:
    """Latents n c h w within the bound: n c h w. `config.limit` is that of tanh, softclamp and clamp."""
    match config.bound:
        case "tanh" | "softclamp":
            return torch.tanh(latents / config.limit) * config.limit
        case "clamp":
            return latents.clamp(-config.limit, config.limit)
        case "rmsnorm":  # of each position, over its channels
            return latents * latents.square().mean(dim=1, keepdim=True).add(config.eps).rsqrt()
        case "sphere":  # the same with length 1
            return F.normalize(latents, dim=1, eps=config.eps)
        case "layernorm":  # of the whole tensor
            return F.layer_norm(latents, latents.shape[1:], eps=config.eps)
        case _:
            return latents


def perturbed(latents: Tensor, config: BottleneckConfig, noise: Tensor, level: Tensor) -> Tensor:
    """Latents n c h w as the decoder is trained on them: with noise, and with the last channels at 0.

    noise: standard normal, n c h w. level: n numbers in [0,1), one a sample; it sets the strength of the noise and the
    number of channels that stay. Kinds of noise, with s for `config.noise_scale`:
    - additive: z + level s noise
    - interpolative: (1 - level) z + level s noise
    - sigma: z + |N(0, s/0.8)| noise, one scalar a sample
    """
    t = level.to(latents)[:, None, None, None]
    noise = noise.to(latents)
    match config.noise:
        case "additive":
            latents = latents + t * config.noise_scale * noise
        case "interpolative":
            latents = (1 - t) * latents + t * config.noise_scale * noise
        case "sigma":
            # |N(0, 1)| of a uniform number, by its quantile function
            latents = latents + (config.noise_scale / 0.8) * torch.erfinv(t) * 2**0.5 * noise
    if config.prefixes:
        kept = torch.tensor(config.prefixes, device=latents.device)[(_spread(level) * len(config.prefixes)).long()]
        latents = (
            latents
            * (torch.arange(latents.shape[1], device=latents.device) < kept.to(latents.device)[:, None])[
                :, :, None, None
            ]
        )
    return latents


def _spread(level: Tensor) -> Tensor:
    """Another uniform number in [0,1) from the same one: its later digits."""
    return (level.double() * 4096).frac()
