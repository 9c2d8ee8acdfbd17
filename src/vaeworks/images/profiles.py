"""Colour profiles: pixels of any ICC profile as sRGB, which networks take images to be in.

Pixels of a wider space, read as sRGB, look dull: Display P3's are wrong by 2.7 in CIEDE2000 on average.
"""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

LARGEST = 2**24
"""Bytes of a profile that is looked at; those of printers have 2 million."""

FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
"""A cache of the last pixel would be shared by threads."""

STATED = "ICC profiles converted to sRGB (relative colorimetric, black point compensation)"
"""What protocols say of it."""

_DIRECT = ("RGB", "RGBA", "CMYK", "LAB")
"""Modes that Little CMS takes as they are."""


def to_srgb(image: Image.Image) -> Image.Image:
    """The image in sRGB: in RGB or RGBA where its pixels had to be changed, else itself.

    A profile that cannot be read, or is of another kind of pixels, counts for nothing, as in browsers. Pixels of more
    than 8 bits stay as they are.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= LARGEST or image.mode[:1] in ("I", "F", "1"):
        return image
    if image.mode in ("L", "LA", "La", "PA", "P") and _is_gray(profile):
        return _gray_to_srgb(image, profile)
    if image.mode not in _DIRECT:
        transparent = image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    out = "RGBA" if image.mode == "RGBA" else "RGB"
    if (transform := _transform(profile, image.mode, out)) is None:
        return image
    found = ImageCms.applyTransform(image, transform, inPlace=image.mode == out)
    return image if found is None else found


def _gray_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, "L", "RGB")
    if transform is None:
        return image
    found = ImageCms.applyTransform(image.convert("L"), transform)
    assert found is not None  # it is not in place
    if image.mode in ("LA", "La", "PA") or "transparency" in image.info:
        found.putalpha(image.convert("RGBA").getchannel("A"))
    return found


def _is_gray(profile: bytes) -> bool:
    """Whether a profile is of gray pixels, by its header."""
    return profile[16:20] == b"GRAY"


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str, out: str) -> ImageCms.ImageCmsTransform | None:
    """The way to sRGB; None where there is nothing to do, or a profile that cannot be read."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if mode in ("RGB", "RGBA") and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, _srgb(), mode, out, ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=FLAGS)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
