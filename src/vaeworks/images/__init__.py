"""The only place where pixel ranges, layouts and sizes change.

Inside vaeworks an image is one of three things:
- a Pillow image in mode RGB, or L where one channel is wanted, or La where two are (reading.py);
- uint8: a tensor n c h w in 0..255 (pixels.py);
- a model's image: a float tensor n c h w in [-1,1] (tensors.py).

`open_image` here gives a Pillow image. The function that gives a model's image is `vaeworks.open_image`, from
tensors.py.
"""

from .labels import labelled
from .pixels import (
    center_crop,
    check_divisible,
    check_finite,
    clamped,
    crop_to,
    default_size,
    difference,
    from_model_range,
    grid,
    marked,
    pad_to_multiple,
    square,
    to_model_range,
    to_pillow,
    to_uint8,
)
from .reading import (
    LARGEST_FILE,
    PAIR,
    SUFFIXES,
    UNREAD,
    converted,
    file_content,
    has_alpha,
    image_facts,
    image_file,
    image_size,
    mask_image,
    open_image,
    quiet,
    regular_file,
)
from .tensors import Pixels, check_images, each_image, is_pixels, kind_of, to_images, warn_of_range

__all__ = [
    "LARGEST_FILE",
    "PAIR",
    "SUFFIXES",
    "UNREAD",
    "Pixels",
    "center_crop",
    "check_divisible",
    "check_finite",
    "check_images",
    "clamped",
    "converted",
    "crop_to",
    "default_size",
    "difference",
    "each_image",
    "file_content",
    "from_model_range",
    "grid",
    "has_alpha",
    "image_facts",
    "image_file",
    "image_size",
    "is_pixels",
    "kind_of",
    "labelled",
    "marked",
    "mask_image",
    "open_image",
    "pad_to_multiple",
    "quiet",
    "regular_file",
    "square",
    "to_images",
    "to_model_range",
    "to_pillow",
    "to_uint8",
    "warn_of_range",
]
