"""The difference between two ways of computing an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models import Autoencoder
from .ranges import Half

Outputs = tuple[
    Tensor, Tensor
]  # one image's latents 1 c h w; the image decoded from the reference's latents, 1 3 f*h f*w


@dataclass(frozen=True)
class Deviation:
    """The difference of latents and images to the original's in float32, over a few images; both halves get the
    original's inputs."""

    weights: str
    """original, repaired, or either with ", fixed eps": in programs that read the weights but not the configuration"""
    precision: str
    """dtype of weights and arithmetic, float32, float16 or bfloat16, as GPUs compute it (`emulation.py`)"""
    latents_max: float
    """largest absolute difference of latents; nan where one is not finite"""
    latents_snr: float
    """variance of the latents over mean squared difference, in dB; inf where they are equal, nan where one is not
    finite"""
    latents_broken: float
    """share of latents that are not finite"""
    images_max: float
    """largest absolute difference of decoded pixels, in [-1,1] but not clamped"""
    images_psnr: float
    """of decoded images clamped to [-1,1], peak 2, in dB"""
    images_broken: float
    """share of pixels that are not finite: they come out black"""

    @property
    def finite(self) -> bool:
        """Whether all latents and pixels are finite."""
        return self.latents_broken == 0 == self.images_broken

    def decibels(self, half: Half) -> float:
        """SNR of the encoder's latents, PSNR of the decoder's images; nan where one is not finite."""
        return self.latents_snr if half == "encoder" else self.images_psnr


@torch.inference_mode()
def outputs(autoencoder: Autoencoder, images: Tensor, reference: Sequence[Outputs] | None = None) -> list[Outputs]:
    """Latents of each image n c h w, and the image decoded from them, or from the reference's latents; in float32."""
    results = []
    for i, image in enumerate(images):
        latents = autoencoder.encode(image[None].to(autoencoder.device, autoencoder.dtype)).mode()
        given = latents if reference is None else reference[i][0].to(latents)
        results.append((latents.float(), autoencoder.decode(given).float()))
    return results


def deviation(reference: Sequence[Outputs], actual: Sequence[Outputs], weights: str, precision: str) -> Deviation:
    """The deviation of `actual`, computed with these weights and precision, from `reference`."""
    latents, images = (torch.cat([x[i].flatten() for x in reference]) for i in (0, 1))
    other, decoded = (torch.cat([x[i].flatten() for x in actual]) for i in (0, 1))
    return Deviation(
        weights,
        precision,
        latents_max=_largest(latents, other),
        latents_snr=_decibels(latents.var(correction=0).item(), latents, other),
        latents_broken=_broken(other),
        images_max=_largest(images, decoded),
        images_psnr=_decibels(4.0, images.clamp(-1, 1), decoded.clamp(-1, 1) if not _broken(decoded) else decoded),
        images_broken=_broken(decoded),
    )


def _largest(reference: Tensor, actual: Tensor) -> float:
    return math.nan if _broken(actual) else (actual - reference).abs().max().item()


def _decibels(signal: float, reference: Tensor, actual: Tensor) -> float:
    if _broken(actual):
        return math.nan
    error = (actual - reference).double().square().mean().item()
    return 10 * math.log10(signal / error) if error > 0 and signal > 0 else math.inf if error == 0 else -math.inf


def _broken(values: Tensor) -> float:
    return 1 - values.isfinite().count_nonzero().item() / values.numel()
