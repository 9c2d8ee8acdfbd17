"""What is cut out of an image for training."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .order import CROP, random_uniforms


def random_crop(image: Image.Image, size: int, min_scale: float, flip: bool, seed: int, counter: int) -> Image.Image:
    """A random square of the image, resized to size x size (Lanczos), mirrored half of the time.

    The square's side is min_scale..1 of the image's shorter side, but at least `size`, so that nothing is enlarged.
    Everything random depends on (seed, counter) alone.
    """
    scale, x, y, mirror = random_uniforms(seed, CROP, counter, 4)
    short = min(image.size)
    side = max(size, round(short * (min_scale + (1 - min_scale) * scale)))
    left, top = (int(np.floor(u * (full - side + 1))) for u, full in zip((x, y), image.size, strict=True))
    crop = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=3.0)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and mirror < 0.5 else crop
