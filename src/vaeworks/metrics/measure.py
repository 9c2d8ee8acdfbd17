"""The measurement of one model, image by image, beside baselines without a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import LatentConfig
from ..data import ImageFile, ImageSet
from ..errors import ConfigError, DataError
from ..images import to_model_range, to_pillow, to_uint8
from ..images.channels import PICTURES, check_pictures
from ..losses.ms_ssim import ms_ssim, scales
from ..losses.perceptual import LPIPS
from ..models import Autoencoder
from ..reporting import SILENT, Reporter
from .baselines import down_up, jpeg_at
from .block_codes import BlockCodes, fit_pca, zonal_dct
from .colour import colour_bias
from .crop import Crop
from .evaluation import DCT, DOWN_UP, JPEG, PCA, Evaluation, ImageScore
from .feature_spaces import Features, weights_digest
from .protocol import NOT_MEASURED, Protocol
from .reconstruction import psnr, ssim
from .roundtrip import reconstruction
from .sets import set_distances

NO_LPIPS = "LPIPS: not measured, because no weights were given"

FIT_IMAGES = 256
"""Images that the PCA baseline is fitted on at most."""


@dataclass(frozen=True)
class _Setup:
    """What every image is measured with."""

    autoencoder: Autoencoder
    crop: Crop
    seed: int | None
    features: Features | None
    lpips: LPIPS | None
    codes: BlockCodes


def check_judged(config: LatentConfig, name: str = "this model") -> None:
    """Before any work: a model whose reconstructions can be compared with pictures. Errors: ConfigError if not."""
    if config.in_channels == config.out_channels == 2:
        raise ConfigError(
            f"the images of {name} have 2 channels, and only images of 1 or 3 are evaluated; `vaeworks listen` "
            "evaluates sound, which has 2"
        )
    check_pictures(config, channels=PICTURES, name=name)


def measure(
    autoencoder: Autoencoder,
    files: Sequence[ImageFile],
    crop: Crop,
    *,
    seed: int | None = None,
    features: Features | None = None,
    lpips: LPIPS | None = None,
    no_lpips: str = NO_LPIPS,
    name: str = "",
    pca_data: ImageSet | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """The figures of every image, of the model and of the baselines on the same pixels, and the distances of the sets.

    Each image is read once, and again where the PCA is fitted on it; only its figures and features stay in memory. The
    arguments are those of `evaluate`.
    Errors: DataError where no image can be used; ConfigError for a model whose images cannot be judged.
    """
    check_judged(autoencoder.config)
    codes = _block_codes(autoencoder, crop, files, pca_data, partial(reporter.track, what=f"{name}: fitting the PCA"))
    setup = _Setup(autoencoder, crop, seed, features, lpips, codes)
    scores: list[ImageScore] = []
    vectors: list[tuple[np.ndarray, np.ndarray]] = []
    skipped: list[tuple[str, str]] = []
    flattened = 0
    for number, file in enumerate(reporter.track(files, f"{name}: evaluating")):
        try:
            image, alpha = crop.read(file.path, autoencoder.config.in_channels)
            if features is not None and min(image.shape[-2:]) < features.smallest:
                raise DataError(
                    f"{image.shape[-1]}x{image.shape[-2]} pixels are too few for {features.name}, which needs "
                    f"{features.smallest}"
                )
        except DataError as error:
            skipped.append((str(file.path), str(error)))
            continue
        recon, finite = reconstruction(autoencoder, image, seed, number)
        scores.append(_score(setup, str(file.path), number, image, recon, finite))
        flattened += alpha
        if features is not None:
            recon_features = features(recon)
            if not finite:
                recon_features = np.full_like(recon_features, np.nan)
            vectors.append((features.of_original(image), recon_features))
    if not scores:
        raise DataError(f"no image can be evaluated; the first: {skipped[0][0]}: {skipped[0][1]}")
    digest = ImageSet("", tuple(f for f in files if str(f.path) not in {path for path, _ in skipped})).digest
    sets = (
        set_distances(features, *(np.stack(side) for side in zip(*vectors, strict=True)))
        if features is not None
        else None
    )
    notes = _notes(scores, flattened, None if lpips is not None else no_lpips)
    return Evaluation(
        autoencoder.config.name,
        _protocol(setup, digest, scores),
        tuple(scores),
        tuple(skipped),
        name,
        sets,
        tuple(notes),
        codes=codes.stated,
    )


def _block_codes(
    autoencoder: Autoencoder,
    crop: Crop,
    files: Sequence[ImageFile],
    pca_data: ImageSet | None,
    track: Callable[[Sequence[ImageFile]], Iterable[ImageFile]],
) -> BlockCodes:
    """The linear codes of as many numbers as the latents have. Without `pca_data`, each half of the images is coded by
    the PCA of the other half; an image that is evaluated is never fitted on."""
    channels, factor, numbers = (
        autoencoder.config.in_channels,
        autoencoder.downsample_factor,
        autoencoder.latent_channels,
    )
    numbers = min(numbers, channels * factor**2)
    if pca_data is None:
        sides = [list(files[1::2]), list(files[0::2])] if len(files) > 1 else []
        words = "each half of the images coded by components of the other half"
    else:
        judged = {file.digest for file in files}
        sides = [[file for file in pca_data.files if file.digest not in judged]]
        words = f"components of {pca_data.source}"
    fitted = []
    for side in sides:
        few = side[:: max(1, math.ceil(len(side) * len(sides) / FIT_IMAGES))]
        fitted.append(fit_pca(_readable(track(few), crop, channels), factor, numbers))
    pca = tuple(code for code in fitted if code is not None)
    stated = f"{numbers:,} numbers for each {factor}x{factor} pixels, as many as the latents have"
    if sides and len(pca) == len(sides):
        stated += f"; PCA: {words}, fitted on {sum(code.images for code in pca):,} images"
    else:
        pca = ()
    return BlockCodes(zonal_dct(factor, channels, numbers), pca, stated)


def _readable(files: Iterable[ImageFile], crop: Crop, channels: int) -> Iterator[Tensor]:
    """The pixels of the images that can be evaluated."""
    for file in files:
        try:
            yield crop.read(file.path, channels)[0]
        except DataError:
            continue


def _protocol(setup: _Setup, digest: str, scores: list[ImageScore]) -> Protocol:
    counts = sorted({scales(score.height, score.width) for score in scores})
    return Protocol(
        setup.crop.stated,
        digest,
        setup.crop.resize_stated,
        posterior="mode" if setup.seed is None else f"sample, seed {setup.seed}",
        ms_ssim=f"{' or '.join(map(str, counts))} scales, weights of Wang et al. 2003, mean over channels; mean over "
        "images",
        lpips=NOT_MEASURED
        if setup.lpips is None
        else f"{setup.lpips.network.name}, v0.1 heads, {weights_digest(setup.lpips)}",
        features=NOT_MEASURED if setup.features is None else setup.features.stated,
    )


def _notes(scores: list[ImageScore], flattened: int, no_lpips: str | None) -> list[str]:
    said = [no_lpips] if no_lpips else []
    if flattened:
        said.append(f"{flattened:,} images with transparency were flattened onto white")
    if dead := [score.path for score in scores if not score.finite]:
        named = ", ".join(Path(path).name for path in dead[:3]) + (", ..." if len(dead) > 3 else "")
        said.append(
            f"the model's output is not finite (NaN or infinite) for {len(dead):,} of {len(scores):,} images: {named}"
        )
    return said


def _score(setup: _Setup, path: str, number: int, image: Tensor, recon: Tensor, finite: bool) -> ImageScore:
    _, height, width = image.shape
    factor = setup.autoencoder.downsample_factor
    latent_bytes = 2 * setup.autoencoder.latent_channels * height * width // factor**2
    original = to_pillow(image)
    shrunk = to_uint8(down_up(original, factor))
    jpeg, jpeg_bytes = jpeg_at(original, latent_bytes)
    coded = {DOWN_UP: shrunk, JPEG: to_uint8(jpeg), DCT: setup.codes.dct(image)}
    if setup.codes.pca:
        coded[PCA] = setup.codes.pca[number % len(setup.codes.pca)](image)
    baselines = {name: (psnr(image, other), ssim(image, other)) for name, other in coded.items()}
    lpips = None if setup.lpips is None else _lpips(setup.lpips, image, recon)
    figures = (psnr(image, recon), ssim(image, recon), _ms_ssim(image, recon), lpips, colour_bias(image, recon))
    if not finite:
        figures = (math.nan, math.nan, math.nan, None if lpips is None else math.nan, (math.nan,) * len(figures[-1]))
    return ImageScore(
        path, width, height, figures[0], figures[1], baselines, latent_bytes, jpeg_bytes, *figures[2:], finite
    )


def _ms_ssim(image: Tensor, recon: Tensor) -> float:
    a, b = (to_model_range(x[None]).double() for x in (image, recon))
    return ms_ssim(b, a).item()


@torch.inference_mode()
def _lpips(distance: LPIPS, image: Tensor, recon: Tensor) -> float:
    device = next(distance.parameters()).device
    a, b = (to_model_range(x[None]).to(device) for x in (image, recon))
    return distance.per_image(b, a).item()
