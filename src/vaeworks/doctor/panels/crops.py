"""Crops that bound what decoding costs, and decoders whose pictures are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..finding import Figure, Finding
from ..subject import Subject

CROP = 128
"""Side in pixels of the crops that are decoded: a quarter of the cost of 256. At least CELLS latents."""

CELLS = 16


def crop_cells(subject: Subject) -> int:
    """Side of the crops in latents; not more than there are."""
    return min(subject.mean.shape[-1], subject.mean.shape[-2], max(CELLS, CROP // subject.factor))


def middle_crop(subject: Subject, cells: int) -> tuple[int, int]:
    """Row and column, in latents, of the crop in the middle."""
    return (subject.mean.shape[-2] - cells) // 2, (subject.mean.shape[-1] - cells) // 2


def crop_of(subject: Subject, numbers: list[int], cells: int) -> Tensor:
    """The middle of images, n c f*cells f*cells in [-1,1]."""
    f, (row, column) = subject.factor, middle_crop(subject, cells)
    return subject.images(numbers)[:, :, f * row : f * (row + cells), f * column : f * (column + cells)]


def not_finite(pictures: Tensor) -> float:
    """Share of values that are NaN or infinite: 0..1."""
    return float((~torch.isfinite(pictures)).double().mean())


def undecodable(share: float) -> Finding:
    """The finding where a decoder gives no numbers for finite latents."""
    return Finding(
        "ill",
        f"{share:.2%} of the decoded values are NaN or infinite in float32, so that nothing else can be measured",
        {
            "not_finite": Figure("decoded values that are NaN or infinite", 100 * share, unit="%", limit="ill above 0"),
            "psnr": Figure("PSNR of reconstructions", float("nan"), unit="dB"),
        },
        meaning="The decoder has broken weights or overflows. Pictures are black or noise.",
        remedy="Take another copy of the file; the precision panel tells in which layer it begins.",
        uncertainty="Counted exactly, in float32, on the images that were decoded.",
    )
