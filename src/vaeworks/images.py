"""The only place where pixel ranges, layouts and sizes change.

Inside vaeworks an image is one of three things:
- a Pillow image in mode RGB, or L where one channel is wanted, or La where two are;
- uint8: a tensor n c h w in 0..255;
- a model's image: a float tensor n c h w in [-1,1].
"""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ConfigError, DataError, NotFiniteError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File name endings that count as images."""

PAIR = "vaeworks-pair"
"""Note in a PNG that is a picture of two channels: its red and green are they, and its blue is red again."""


def open_image(source: str | Path | bytes, channels: int = 3) -> Image.Image:
    """A file's image, upright, in mode RGB (L where `channels` is 1, La where it is 2).

    EXIF orientation is applied; 16-bit gray is scaled to 8 bits; palettes and CMYK are converted; what is
    transparent becomes white. Animations give their first frame. La is two planes that Pillow leaves alone;
    those of LA it would weigh by each other when it resizes.
    Errors: DataError, with the reason in a few words, for what cannot be read whole.
    """
    with _file(source) as file:
        file.load()
        if channels in _OTHER_CHANNELS and (PAIR in file.info) != (channels == 2):
            raise DataError(_OTHER_CHANNELS[channels])
        if channels == 2:
            return Image.merge("La", file.convert("RGB").split()[:2])
        return _convert(_upright(file), "L" if channels == 1 else "RGB")


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels that an encoded image claims to have, before EXIF orientation: only its header is read.

    Errors: DataError, with the reason in a few words, for what is no image.
    """
    with _file(content) as file:
        return file.size


_OTHER_CHANNELS = {
    1: "a picture of two channels, and this model's images have one; take sound:SRC",
    2: "no picture of two channels, as this model wants it; take stereo:SRC",
}


@contextmanager
def _file(source: str | Path | bytes) -> Iterator[Image.Image]:
    try:
        with quiet, Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            yield file
    except UnidentifiedImageError:
        raise DataError("not an image") from None
    except Image.DecompressionBombError:
        raise DataError("larger than Pillow's safety limit") from None
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever their C library reports
        raise DataError(" ".join(str(error).split()) or type(error).__name__) from None


class _Quiet:
    """A context without warnings: Pillow warns of odd metadata, but the pixels decide. For any number of threads at once,
    whose last one to leave restores the filters, which belong to the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._saved.__exit__(None, None, None)


quiet = _Quiet()
if hasattr(os, "register_at_fork"):  # a process that is forked while another thread is inside would wait for that thread for ever
    os.register_at_fork(after_in_child=quiet.__init__)  # type: ignore[misc]


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is stored where the EXIF data cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a parser of other people's bytes fails in many ways
        return image


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Any Pillow mode as RGB or L of 8 bits."""
    if image.mode.startswith("I"):  # 16-bit gray; Pillow would clip it at 255
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"integer gray levels outside 0..65535 (up to {values.max():.0f})")
        image = Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.mode == "F":
        raise DataError("floating-point pixels, whose range is unknown")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def to_uint8(image: Image.Image) -> Tensor:
    """A Pillow image as uint8: c h w in 0..255."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def marked(mask: Image.Image) -> Tensor:
    """What a mask in mode L marks: bool h w. Lighter than 127 where anything is so light; else all but 0, as in masks of 0 and 1."""
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
    return images.float().div_(127.5).sub_(1.0)


def from_model_range(images: Tensor) -> Tensor:
    """Floats in [-1,1] to uint8 in 0..255, clamped and rounded: the inverse of `to_model_range`.

    Errors: NotFiniteError for infinities and NaN, which would become white and black.
    """
    return check_finite(images, "the picture's pixels").detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def clamped(images: Tensor) -> Tensor:
    """n c h w, clamped to [-1,1]; infinities become NaN, so that they are still seen to be no numbers."""
    return torch.where(images.isinf(), torch.nan, images.clamp(-1, 1))


def check_finite(values: Tensor, what: str) -> Tensor:
    """The values themselves. what: they are, in the plural. Errors: NotFiniteError where some are infinite or NaN."""
    if not values.isfinite().all():
        count, kind = int((~values.isfinite()).sum()), str(values.dtype).removeprefix("torch.")
        remedy = "`vaeworks repair` makes a VAE fit into it, and bfloat16 and float32 reach further"
        if values.dtype != torch.float16:
            remedy = "take another copy of the model, or of what it was given: `vaeworks repair` mends what overflows in float16 alone"
        raise NotFiniteError(f"{what} hold {count:,} values that are no numbers in {kind}, so something has overflowed; {remedy}")
    return values


def check_divisible(height: int, width: int, factor: int) -> None:
    """Errors: ConfigError where height or width is no multiple of a model's downsample_factor, or is zero."""
    for name, value in (("height", height), ("width", width)):
        if value % factor or value == 0:
            raise ConfigError(
                f"{name} (={value}) must be divisible by downsample_factor (={factor}); "
                f"pass pad=True to repeat the border up to {max(1, math.ceil(value / factor)) * factor}, or crop"
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
        raise DataError(f"{image.size[0]}x{image.size[1]} pixels, smaller than the {factor} that the model's factor asks for")
    left, top = (image.size[0] - width) // 2, (image.size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def grid(rows: Sequence[Sequence[Tensor]], gap: int = 2, background: int = 255) -> Image.Image:
    """Rows of uint8 images c h w as one picture; every column as wide as its widest image."""
    columns = max(len(row) for row in rows)
    widths = [max(row[i].shape[-1] for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(image.shape[-2] for image in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + gap * (columns - 1), sum(heights) + gap * (len(rows) - 1)), (background,) * 3)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for i, image in enumerate(row):
            sheet.paste(to_pillow(image), (sum(widths[:i]) + gap * i, top))
        top += height + gap
    return sheet


def difference(a: Tensor, b: Tensor, gain: int = 4) -> Tensor:
    """|a - b| of two uint8 images, times `gain`, as uint8."""
    return (a.int() - b.int()).abs().mul(gain).clamp(0, 255).to(torch.uint8)


def has_alpha(content: bytes) -> bool:
    """Whether an encoded image's header promises transparency."""
    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in file.info
    except Exception:  # it was read a moment ago; what a second look fails at decides nothing
        return False


def square(image: Image.Image, size: int) -> Tensor:
    """The middle of an image, its shorter side resized to `size` pixels by Lanczos: uint8 c size size."""
    return to_uint8(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
