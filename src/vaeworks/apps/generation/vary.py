"""Pictures around a picture: samples of its posterior, and a walk among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...metrics import psnr
from ...models import Autoencoder
from ...random_streams import VARIANTS, WALK, latent_noise
from ...runtime import Codec
from ..codes import Code, decode_picture

ALIKE = 1.0
"""Gray levels between variants below which nobody sees a difference."""


@dataclass(frozen=True)
class Variety:
    """How different variants are."""

    psnr: float
    """of all variants together against the reconstruction without noise, in dB; infinite where all are equal to it"""
    pixel_std: float
    """between variants, root mean square over pixels and channels, in gray levels of 255"""
    latent_std: float
    """of the noise that was added, root mean square over latents, in their own units"""

    @property
    def alike(self) -> bool:
        """Whether nobody can tell the variants apart."""
        return self.pixel_std < ALIKE

    @property
    def sentence(self) -> str:
        """For people."""
        seen = f"variants differ by {self.pixel_std:.2f} gray levels ({self.psnr:.1f} dB from the reconstruction)"
        return seen + (
            ": they are all alike to the eye; the posterior is nearly a point. --noise 0.3 varies more"
            if self.alike
            else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"psnr": self.psnr, "pixel_std": self.pixel_std, "latent_std": self.latent_std, "alike": self.alike}


def latent_scale(autoencoder: Autoencoder, means: Sequence[Tensor]) -> Tensor:
    """Standard deviation of every latent channel: the configuration's where it was measured, else over these latents c
    h w: c.

    Channels that do not vary, as those of a single latent cannot, count as 1.
    """
    config = autoencoder.config
    if config.latents_std is not None:
        return torch.tensor(config.latents_std)
    spread = torch.cat([mean.flatten(1) for mean in means], 1).std(1, correction=0)
    return torch.where(spread > 0, spread, 1.0)


def disturbed(code: Code, scale: Tensor, noise: float) -> Code:
    """The same means with noise times the channels' std (scale: c) in place of the posterior's."""
    return Code(code.mean, (noise * scale)[:, None, None].expand_as(code.mean), code.height, code.width)


def variants(
    codec: Codec, code: Code, count: int, temperature: float = 1.0, seed: int = 0, track: Any = iter
) -> tuple[list[Tensor], Variety]:
    """Pictures uint8 c h w of samples of the posterior with `temperature` times its std; sample k is the same whatever
    the count.

    temperature 0 is the reconstruction.
    """
    noise = latent_noise(seed, list(range(count)), tuple(code.mean.shape), VARIANTS)  # type: ignore[arg-type]
    pictures = [
        decode_picture(codec, code.sample(temperature, noise=one), code.height, code.width) for one in track(noise)
    ]
    centre = decode_picture(codec, code.mean, code.height, code.width)
    spread = torch.stack(pictures).double().var(0, correction=0).mean().sqrt().item()
    added = temperature * code.std.double().square().mean().sqrt().item()
    return pictures, Variety(psnr(centre.expand(count, -1, -1, -1), torch.stack(pictures)), spread, added)


def walk(
    codec: Codec, code: Code, steps: int, temperature: float = 1.0, seed: int = 0, track: Any = iter
) -> list[Tensor]:
    """Pictures uint8 c h w on a closed way about a picture: mean + temperature * std * (cos θ n1 + sin θ n2), θ evenly
    around.

    Noise on the great circle through two draws is standard normal everywhere, so that every picture is a sample at this
    temperature; the last is a step away from the first.
    """
    one, other = latent_noise(seed, [0, 1], tuple(code.mean.shape), WALK)  # type: ignore[arg-type]
    turns = (2 * math.pi * i / steps for i in range(steps))
    circle = [math.cos(angle) * one + math.sin(angle) * other for angle in turns]
    return [
        decode_picture(codec, code.sample(temperature, noise=noise), code.height, code.width) for noise in track(circle)
    ]


def walk_figures(pictures: Sequence[Tensor]) -> dict[str, float]:
    """Mean and largest step of a closed walk, and the farthest pair from the first, root mean square in gray levels."""
    steps = [_apart(a, b) for a, b in itertools.pairwise([*pictures, pictures[0]])]
    return {
        "mean_step": sum(steps) / len(steps),
        "largest_step": max(steps),
        "farthest": max(_apart(pictures[0], p) for p in pictures),
    }


def _apart(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().sqrt().item()
