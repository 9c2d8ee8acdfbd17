"""A look at held-out images in the course of a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from ..data import ImageFile
from ..images import difference, grid
from ..metrics import psnr
from ..metrics.evaluate import read_crop, reconstruct_uint8
from ..models import Autoencoder

CROP = 256
"""Longest side of the crops that are validated, in pixels."""

SHOWN = 6
"""Images in a grid."""


def validation_images(autoencoder: Autoencoder, files: Sequence[ImageFile], count: int) -> list[Tensor]:
    """Central crops of `count` files, evenly chosen by content hash: uint8 c h w, sides multiples of f."""
    return [read_crop(file.path, autoencoder, CROP) for file in validation_files(files)[:count]]


def validation_files(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Files in the order of their content hashes, so that the first few are a fair sample of a folder tree."""
    return sorted(files, key=lambda file: file.digest)


def validate(autoencoder: Autoencoder, images: Sequence[Tensor]) -> tuple[float, Image.Image]:
    """Mean PSNR in dB by the posterior's mode, and a grid with rows original, reconstruction, difference x 4."""
    was_training = autoencoder.training
    autoencoder.eval()
    recons = [reconstruct_uint8(autoencoder, image) for image in images]
    autoencoder.train(was_training)
    pairs = list(zip(images, recons, strict=True))
    rows = [[a, b, difference(a, b)] for a, b in pairs[:SHOWN]]
    return statistics.fmean(psnr(a, b) for a, b in pairs), grid([list(column) for column in zip(*rows, strict=True)])
