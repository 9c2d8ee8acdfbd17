"""Validation on held-out images during a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data import ImageFile
from ..images import difference, from_model_range, labelled, to_model_range
from ..metrics import psnr, ssim
from ..metrics.evaluation import mean_psnr
from ..metrics.roundtrip import read_crop
from ..models import Autoencoder, Posterior

CROP = 256
"""Longest side of the crops that are validated, in pixels."""

SHOWN = 6
"""Most images in a grid."""

ROWS = ("original", "reconstruction", "difference x 4")
"""Labels of a grid's rows."""

ROW_GAP = 2
"""White pixels between a grid's images."""


@dataclass(frozen=True)
class ValidationResult:
    """Figures of one validation on held-out images."""

    psnr: float
    """mean over images in dB, by the posterior's mode, rounded to 8 bits; an exact image counts as 100; nan where the
    decoder gave no numbers for one"""
    ssim: float | None
    """mean over images; None where all are smaller than SSIM's window"""
    latent_mean: tuple[float, ...]
    """mean of the posterior's means, per channel, over all images and positions"""
    latent_std: tuple[float, ...]
    """standard deviation of the posterior's means, likewise"""
    latent_absmax: float
    """largest absolute value of a posterior's mean"""
    posterior_std: tuple[float, ...] | None
    """root of the mean variance of posteriors, per channel; None for a bottleneck that has no posterior"""
    kl_per_channel: tuple[float, ...] | None
    """KL divergence from the prior, nats per latent element; None likewise"""
    picture: Image.Image | None
    """a grid with rows original, reconstruction, difference x 4; None where the decoder gave no numbers for one"""

    @property
    def figures(self) -> dict[str, Any]:
        """The figures by their names in the log."""
        found = {
            "val_psnr": self.psnr,
            "val_ssim": self.ssim,
            "latent_mean": list(self.latent_mean),
            "latent_std": list(self.latent_std),
            "latent_absmax": self.latent_absmax,
        }
        if self.posterior_std is None or self.kl_per_channel is None:
            return found
        return {**found, "posterior_std": list(self.posterior_std), "kl_per_channel": list(self.kl_per_channel)}


def validation_images(autoencoder: Autoencoder, files: Sequence[ImageFile], count: int) -> list[Tensor]:
    """Central crops of `count` files, evenly chosen by content hash: uint8 c h w, sides multiples of f."""
    return [read_crop(file.path, autoencoder, CROP) for file in validation_files(files)[:count]]


def validation_files(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Files in the order of their content hashes, so that the first few are a fair sample of a folder tree."""
    return sorted(files, key=lambda file: file.digest)


@torch.inference_mode()
def validate(autoencoder: Autoencoder, images: Sequence[Tensor]) -> ValidationResult:
    """Reconstruct every image by the posterior's mode, and measure the reconstructions and the latents.

    images: uint8 c h w, sides multiples of f.
    """
    was_training = autoencoder.training
    autoencoder.eval()
    latents, psnrs = _Latents(), []
    pairs: list[tuple[Tensor, Tensor]] = []
    for image in images:
        posterior = autoencoder.encode(to_model_range(image[None]).to(autoencoder.device, autoencoder.dtype))
        latents.add(posterior)
        decoded = autoencoder.decode(posterior.mode())
        if not decoded.isfinite().all():
            psnrs.append(math.nan)
            continue
        pairs.append((image, from_model_range(decoded)[0].cpu()))
        psnrs.append(psnr(*pairs[-1]))
    autoencoder.train(was_training)
    similar = [value for a, b in pairs if math.isfinite(value := ssim(a, b))]
    rows = [[a, b, difference(a, b)] for a, b in pairs[:SHOWN]]
    return ValidationResult(
        psnr=mean_psnr(psnrs),
        ssim=statistics.fmean(similar) if similar else None,
        **latents.figures(),
        picture=labelled([list(column) for column in zip(*rows, strict=True)], sides=ROWS, gap=ROW_GAP)
        if len(pairs) == len(images)
        else None,
    )


def first_panel(sheet: Image.Image, row: int, sizes: Sequence[tuple[int, int]]) -> Image.Image:
    """The first image's panel in a row of a run's grid.

    sizes: width and height of the images in the grid. What is wider than these images is the margin with the labels,
    which grids of early runs do not have.
    """
    left = sheet.width - sum(width for width, _ in sizes) - ROW_GAP * (len(sizes) - 1)
    top = row * ((sheet.height - ROW_GAP * (len(ROWS) - 1)) // len(ROWS) + ROW_GAP)  # rows are equally high
    width, height = sizes[0]
    return sheet.crop((left, top, left + width, top + height))


class _Latents:
    """Sums over posteriors of images of different sizes, in double precision."""

    def __init__(self) -> None:
        self._sums: Tensor | float = 0.0
        self._count = 0
        self._absmax = 0.0
        self._has_kl = True

    def add(self, posterior: Posterior) -> None:
        mean = posterior.mean.float().cpu().double()
        self._has_kl = not posterior.is_point
        kl, var = (
            x.float().cpu().double() if self._has_kl else torch.zeros_like(mean)
            for x in (posterior.kl(), posterior.var)
        )
        self._sums = self._sums + torch.stack([mean, mean.square(), var, kl]).sum(dim=(1, 3, 4))
        self._count += mean[:, 0].numel()
        self._absmax = max(self._absmax, mean.abs().max().item())

    def figures(self) -> dict[str, Any]:
        assert isinstance(self._sums, Tensor), "there is at least one image"
        mean, square, var, kl = self._sums / self._count
        std = (square - mean.square()).clamp_min(0).sqrt()
        return {
            "latent_mean": tuple(mean.tolist()),
            "latent_std": tuple(std.tolist()),
            "latent_absmax": self._absmax,
            "posterior_std": tuple(var.sqrt().tolist()) if self._has_kl else None,
            "kl_per_channel": tuple(kl.tolist()) if self._has_kl else None,
        }
