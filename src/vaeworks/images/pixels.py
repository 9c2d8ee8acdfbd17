"""Ranges, layouts and sizes of pixels: each change with its inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..config import LatentConfig
from ..errors import ConfigError, DataError, NotFiniteError


def to_uint8(image: Image.Image) -> Tensor:
    """A Pillow image as uint8: c h w in 0..255."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def marked(mask: Image.Image) -> Tensor:
    """What a mask in mode L marks: bool h w. Lighter than 127 where anything is so light; else all but 0, as in masks
    of 0 and 1."""
    values = to_uint8(mask)[0]
    return values > (127 if int(values.max()) > 127 else 0)


def to_pillow(image: Tensor) -> Image.Image:
    """One uint8 image, c h w in 0..255, as a Pillow image.

    Of two channels the first is red and blue, the second green: where they are equal it is gray.
    """
    array = image.cpu().numpy()
    if len(array) == 2:
        array = array[[0, 1, 0]]
    return Image.fromarray(array[0] if array.shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def to_model_range(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1,1]: x / 127.5 - 1."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def from_model_range(images: Tensor) -> Tensor:
    """Floats in [-1,1] to uint8 in 0..255, clamped and rounded: the inverse of `to_model_range`.

    Errors: NotFiniteError for infinities and NaN, which would become white and black.
    """
    return (
        check_finite(images, "the picture's pixels")
        .detach()
        .float()
        .add(1.0)
        .mul_(127.5)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
    )


def clamped(images: Tensor) -> Tensor:
    """n c h w, clamped to [-1,1]; infinities become NaN, so that they are still seen to be no numbers."""
    return torch.where(images.isinf(), torch.nan, images.clamp(-1, 1))


def check_finite(values: Tensor, what: str) -> Tensor:
    """The values themselves. what: they are, in the plural. Errors: NotFiniteError where some are infinite or NaN."""
    if not values.isfinite().all():
        count, kind = int((~values.isfinite()).sum()), str(values.dtype).removeprefix("torch.")
        remedy = "`vaeworks repair` makes a VAE fit into it, and bfloat16 and float32 reach further"
        if values.dtype != torch.float16:
            remedy = (
                "take another copy of the model, or of what it was given: `vaeworks repair` mends what overflows in "
                "float16 alone"
            )
        raise NotFiniteError(
            f"{what} hold {count:,} values that are no numbers in {kind}, so something has overflowed; {remedy}"
        )
    return values


def default_size(*configs: LatentConfig) -> int:
    """About 256 pixels, as a multiple that every one of these models takes."""
    multiple = math.lcm(*(config.downsample_factor * config.latents_patch for config in configs))
    return max(1, round(256 / multiple)) * multiple


def check_divisible(height: int, width: int, factor: int) -> None:
    """Errors: ConfigError where height or width is no multiple of a model's downsample_factor, or is zero."""
    for name, value in (("height", height), ("width", width)):
        if value % factor or value == 0:
            raise ConfigError(
                f"{name} (={value}) must be divisible by downsample_factor (={factor}); pass pad=True to repeat the "
                f"border up to {max(1, math.ceil(value / factor)) * factor}, or crop"
            )


def pad_to_multiple(images: Tensor, factor: int) -> Tensor:
    """n c h w, with the last row and column repeated until h and w are multiples of `factor`."""
    down, right = -images.shape[-2] % factor, -images.shape[-1] % factor
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


def crop_to(images: Tensor, height: int, width: int) -> Tensor:
    """The upper left height x width of n c h w: takes away what `pad_to_multiple` added."""
    return images[..., :height, :width]


def center_crop(image: Image.Image, factor: int, limit: int | None = None) -> Image.Image:
    """The middle of a Pillow image, with sides that are multiples of `factor` and at most `limit` pixels.

    Nothing is resized, so that the pixels judged are the file's own.
    Errors: DataError for an image smaller than `factor`.
    """
    width, height = ((min(side, limit or side) // factor) * factor for side in image.size)
    if not width or not height:
        raise DataError(
            f"{image.size[0]}x{image.size[1]} pixels, smaller than the {factor} that the model's factor asks for"
        )
    left, top = (image.size[0] - width) // 2, (image.size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def grid(rows: Sequence[Sequence[Tensor]], gap: int = 2, background: int = 255) -> Image.Image:
    """Rows of uint8 images c h w as one picture; every column as wide as its widest image."""
    columns = max(len(row) for row in rows)
    widths = [max(row[i].shape[-1] for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(image.shape[-2] for image in row) for row in rows]
    sheet = Image.new(
        "RGB", (sum(widths) + gap * (columns - 1), sum(heights) + gap * (len(rows) - 1)), (background,) * 3
    )
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for i, image in enumerate(row):
            sheet.paste(to_pillow(image), (sum(widths[:i]) + gap * i, top))
        top += height + gap
    return sheet


def difference(a: Tensor, b: Tensor, gain: int = 4) -> Tensor:
    """|a - b| of two uint8 images, times `gain`, as uint8."""
    return (a.int() - b.int()).abs().mul(gain).clamp(0, 255).to(torch.uint8)


def square(image: Image.Image, size: int) -> Tensor:
    """The middle of an image, its shorter side resized to `size` pixels by Lanczos: uint8 c size size."""
    return to_uint8(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
