"""Baselines of an evaluation that keep an image as a smaller image or as a JPEG; block_codes.py has others."""

from __future__ import annotations

import io

from PIL import Image

from ..images import image_file


def down_up(image: Image.Image, factor: int) -> Image.Image:
    """The image, bicubically shrunk by `factor` and enlarged again: 3 numbers for every factor x factor pixels."""
    small = image.resize((image.width // factor, image.height // factor), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def jpeg_at(image: Image.Image, num_bytes: int) -> tuple[Image.Image, int]:
    """The image as the best JPEG of at most `num_bytes` (or the smallest there is), and that file's size in bytes."""
    low, high = 1, 95
    best = _jpeg(image, low)
    while low <= high:
        quality = (low + high) // 2
        data = _jpeg(image, quality)
        if len(data) <= num_bytes:
            best, low = data, quality + 1
        else:
            high = quality - 1
    with image_file(best) as decoded:
        return decoded.convert(image.mode), len(best)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2, optimize=True)
    return buffer.getvalue()
