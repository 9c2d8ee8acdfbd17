"""Linear codes of blocks: baselines that keep as many numbers of an image as the latents of a VAE do.

A VAE with downsample factor f and c latent channels keeps c numbers of each block of f x f pixels. So does the zonal
DCT, which is fixed, and the principal components (PCA) of other images' blocks, the best linear code for those images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from .dct import dct_matrix

Array = NDArray[np.float64]

RHO = 0.95
"""Correlation of neighbouring pixels in the image model that orders the DCT's coefficients (Jain, Fundamentals of
Digital Image Processing, 1989, section 5.6)."""

CHROMA = 1 / 16
"""Variance of Cb and of Cr over that of Y in that model."""

TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Rows: Y, Cb and Cr (without offset) of R, G and B, as JPEG has them (ITU-T T.871)."""

LARGEST = 3072
"""Values of a block up to which a PCA is fitted: RGB at f = 32. The next factor would need a matrix of 1.2 GB."""

STRIPE = 2**20
"""Pixels that are coded at a time."""


@dataclass(frozen=True)
class BlockCode:
    """A linear code: each block of factor x factor pixels becomes `analysis @ (block - mean)`, and back."""

    factor: int
    mean: Array
    """n: mean block, n = channels factor^2, gray levels"""
    analysis: Array
    """k n: from a block to k numbers"""
    synthesis: Array
    """n k: back"""
    images: int = 0
    """number of images that it was fitted on"""

    def __call__(self, image: Tensor) -> Tensor:
        """The image, uint8 c h w with sides that are multiples of `factor`, after coding; rounded to 8 bits."""
        return torch.cat([self._coded(stripe) for stripe in _stripes(image, self.factor)], dim=1)

    def _coded(self, image: Tensor) -> Tensor:
        numbers = (_blocks(image, self.factor) - self.mean) @ self.analysis.T
        pixels = _image(numbers @ self.synthesis.T + self.mean, image.shape, self.factor)
        return torch.from_numpy(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class BlockCodes:
    """The linear codes that one model is compared with."""

    dct: BlockCode
    pca: tuple[BlockCode, ...] = ()
    """image i of the evaluation is coded by number i % len(pca); () where there was nothing to fit on"""
    stated: str = ""
    """what the codes keep, and what the PCA was fitted on"""


def zonal_dct(factor: int, channels: int, numbers: int) -> BlockCode:
    """The DCT of Y, Cb and Cr (or of gray) that keeps the `numbers` coefficients of largest variance in the model of
    an image whose neighbouring pixels correlate by RHO; a fixed choice, the same for all images."""
    _check(factor, numbers)
    transform = dct_matrix(factor, torch.float64).numpy()
    along = np.diag(transform @ scipy.linalg.toeplitz(RHO ** np.arange(factor)) @ transform.T)
    to_planes, share = (np.eye(1), np.ones(1)) if channels == 1 else (TO_YCBCR, np.array([1.0, CHROMA, CHROMA]))
    from_planes = np.linalg.inv(to_planes)
    gain = share * (from_planes**2).sum(0)  # squared error of the pixels for a unit of it in each plane
    variance = np.einsum("p,u,v->puv", gain, along, along)
    kept = np.argsort(-variance.reshape(-1), kind="stable")[:numbers]
    plane, u, v = np.unravel_index(kept, variance.shape)

    def rows(planes: Array) -> Array:
        """The kept basis blocks in a colour space given by rows: k (channels f f)."""
        return np.einsum("kc,ki,kj->kcij", planes[plane], transform[u], transform[v]).reshape(len(kept), -1)

    return BlockCode(factor, np.full(channels * factor**2, 127.5), rows(to_planes), rows(from_planes.T).T)


def fit_pca(images: Iterable[Tensor], factor: int, numbers: int) -> BlockCode | None:
    """The first `numbers` principal components of the images' blocks; None without an image, or for blocks of more than
    LARGEST values.

    images: uint8 c h w with sides that are multiples of `factor`.
    """
    _check(factor, numbers)
    number, count, total, products = 0, 0, np.zeros(()), np.zeros(())
    for image in images:
        number += 1
        if image.shape[0] * factor**2 > LARGEST:
            return None
        for stripe in _stripes(image, factor):
            blocks = _blocks(stripe, factor) - 127.5
            count += len(blocks)
            total = total + blocks.sum(0)
            products = products + blocks.T @ blocks
    if not count:
        return None
    mean = total / count
    last = len(mean) - 1
    first = max(0, last + 1 - numbers)
    _, vectors = scipy.linalg.eigh(products / count - np.outer(mean, mean), subset_by_index=(first, last))
    return BlockCode(factor, mean + 127.5, vectors.T, vectors, number)


def _check(factor: int, numbers: int) -> None:
    """Errors: ConfigError for no block or no number."""
    if factor < 1 or numbers < 1:
        raise ConfigError(
            f"a block code of {numbers} numbers for {factor}x{factor} pixels keeps nothing; give 1 or more"
        )


def _stripes(image: Tensor, factor: int) -> Iterator[Tensor]:
    """The image c h w in stripes of whole blocks and about STRIPE pixels."""
    rows = max(1, STRIPE // (image.shape[-1] * factor)) * factor
    return (image[:, top : top + rows] for top in range(0, image.shape[-2], rows))


def _blocks(image: Tensor, factor: int) -> Array:
    """The blocks of an image c h w as rows: (h/f w/f) (c f f)."""
    channels, height, width = image.shape
    pixels = image.numpy().astype(np.float64).reshape(channels, height // factor, factor, width // factor, factor)
    return pixels.transpose(1, 3, 0, 2, 4).reshape(-1, channels * factor**2)


def _image(blocks: Array, shape: Sequence[int], factor: int) -> Array:
    """The image c h w of blocks in rows."""
    channels, height, width = shape
    rows = blocks.reshape(height // factor, width // factor, channels, factor, factor)
    return rows.transpose(2, 0, 3, 1, 4).reshape(channels, height, width)
