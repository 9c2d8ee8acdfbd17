"""A model judged on images, image by image, beside baselines that have learned nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data import ImageFile, ImageSet
from ..data.place import Place, open_place
from ..errors import ConfigError, DataError
from ..images import center_crop, difference, from_model_range, grid, to_model_range, to_pillow, to_uint8
from ..models import Autoencoder
from .baselines import down_up, jpeg_at
from .reconstruction import SSIM_WINDOW, psnr, ssim

DOWN_UP, JPEG = "bicubic down-up", "JPEG, same bytes"
"""Names of the baseline rows."""


@dataclass(frozen=True)
class Protocol:
    """What a figure depends on besides the model. Figures of different protocols are not comparable."""

    crop: str
    """which part of an image is judged"""
    images: str
    """SHA-256 over the judged files' contents"""
    posterior: str = "mode"
    rounding: str = "clamped and rounded to 8 bits"
    psnr: str = "per image over all channels, peak 255; mean over images, at most 100 dB each"
    ssim: str = "scikit-image, Gaussian 11x11, sigma 1.5, per channel; mean over images"


@dataclass(frozen=True)
class ImageScore:
    """One image's figures; a baseline's name maps to its PSNR and SSIM."""

    path: str
    width: int
    """pixels of the judged crop"""
    height: int
    psnr: float
    """dB"""
    ssim: float
    baselines: dict[str, tuple[float, float]]
    latent_bytes: int
    """of the latents in fp16"""
    jpeg_bytes: int
    """of the JPEG baseline's file"""


def mean_psnr(values: Iterable[float]) -> float:
    """Mean in dB of PSNRs, of which an image that is reproduced exactly counts as 100."""
    return statistics.fmean(min(value, 100.0) for value in values)


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on a set of images."""

    model: str
    """f and c"""
    protocol: Protocol
    scores: tuple[ImageScore, ...]
    skipped: tuple[tuple[str, str], ...]
    """(path, reason)"""

    @property
    def psnr(self) -> float:
        """Mean over images, in dB."""
        return mean_psnr(score.psnr for score in self.scores)

    @property
    def ssim(self) -> float:
        """Mean over images."""
        return statistics.fmean(score.ssim for score in self.scores)

    def baseline(self, name: str) -> tuple[float, float]:
        """Mean PSNR and SSIM of a baseline over the same images."""
        pairs = [score.baselines[name] for score in self.scores]
        return mean_psnr(p for p, _ in pairs), statistics.fmean(s for _, s in pairs)

    def worst(self, count: int) -> tuple[ImageScore, ...]:
        """The images with the lowest PSNR, worst first."""
        return tuple(sorted(self.scores, key=lambda score: score.psnr)[:count])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        baselines = {name: dict(zip(("psnr", "ssim"), self.baseline(name), strict=True)) for name in (DOWN_UP, JPEG)}
        return {"psnr": self.psnr, "ssim": self.ssim, "baselines": baselines, **asdict(self)}


def read_crop(path: Place | str, autoencoder: Autoencoder, limit: int | None) -> Tensor:
    """The judged part of an image: its middle, sides multiples of f and at most `limit`; uint8 c h w.

    Errors: DataError for a broken image or one smaller than f.
    """
    image = open_place(path, autoencoder.config.in_channels)
    return to_uint8(center_crop(image, autoencoder.downsample_factor, limit))


@torch.inference_mode()
def reconstruct_uint8(autoencoder: Autoencoder, image: Tensor) -> Tensor:
    """One uint8 image c h w through the posterior's mode and back, rounded to uint8."""
    x = to_model_range(image[None]).to(autoencoder.device, autoencoder.dtype)
    return from_model_range(autoencoder.reconstruct(x))[0].cpu()


def evaluate(
    autoencoder: Autoencoder,
    files: tuple[ImageFile, ...],
    *,
    limit: int | None = 512,
    progress: Callable[[Iterable[ImageFile]], Iterable[ImageFile]] = iter,
) -> Evaluation:
    """PSNR and SSIM of every image, of the model and of two baselines on the same pixels.

    limit: longest side of the central crop that is judged, in pixels; None: whole images.
    Errors: DataError where no image can be used.
    """
    if limit is not None and limit < max(SSIM_WINDOW, autoencoder.downsample_factor):
        raise ConfigError(f"limit (={limit}) must be at least {max(SSIM_WINDOW, autoencoder.downsample_factor)} pixels")
    factor = autoencoder.downsample_factor
    scores: list[ImageScore] = []
    skipped: list[tuple[str, str]] = []
    for file in progress(files):
        try:
            image = read_crop(file.path, autoencoder, limit)
            if min(image.shape[-2:]) < SSIM_WINDOW:
                raise DataError(f"{file.width}x{file.height} pixels, too small for SSIM's window of {SSIM_WINDOW}")
        except DataError as error:
            skipped.append((str(file.path), str(error)))
            continue
        scores.append(_score(autoencoder, str(file.path), image))
    if not scores:
        raise DataError(f"no image can be evaluated; the first: {skipped[0][0]}: {skipped[0][1]}")
    digest = _digest(files, {path for path, _ in skipped})
    crop = f"central, sides multiples of {factor}" + (f", at most {limit} px" if limit else "") + ", not resized"
    return Evaluation(autoencoder.config.name, Protocol(crop, digest), tuple(scores), tuple(skipped))


def _score(autoencoder: Autoencoder, path: str, image: Tensor) -> ImageScore:
    recon = reconstruct_uint8(autoencoder, image)
    _, height, width = image.shape
    latent_bytes = 2 * autoencoder.latent_channels * height * width // autoencoder.downsample_factor**2
    original = to_pillow(image)
    shrunk = to_uint8(down_up(original, autoencoder.downsample_factor))
    jpeg, jpeg_bytes = jpeg_at(original, latent_bytes)
    baselines = {name: (psnr(image, other), ssim(image, other)) for name, other in ((DOWN_UP, shrunk), (JPEG, to_uint8(jpeg)))}
    return ImageScore(path, width, height, psnr(image, recon), ssim(image, recon), baselines, latent_bytes, jpeg_bytes)


def _digest(files: tuple[ImageFile, ...], without: set[str]) -> str:
    return ImageSet("", tuple(f for f in files if str(f.path) not in without)).digest


def worst_cases(
    autoencoder: Autoencoder, evaluation: Evaluation, limit: int | None, count: int = 4, files: tuple[ImageFile, ...] = ()
) -> Image.Image:
    """A picture of the images with the lowest PSNR: rows of original, reconstruction, difference x 4.

    files: those that were judged; needed where images are not files.
    """
    places = {str(file.path): file.path for file in files}
    rows = []
    for score in evaluation.worst(count):
        image = read_crop(places.get(score.path, score.path), autoencoder, limit)
        recon = reconstruct_uint8(autoencoder, image)
        rows.append([image, recon, difference(image, recon)])
    return grid(rows)
