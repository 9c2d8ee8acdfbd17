"""The pixels of an image that are evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ..data.image_ref import ImageRef, read_place
from ..errors import ConfigError, DataError
from ..images import center_crop, has_alpha, open_image, to_uint8
from .reconstruction import SSIM_WINDOW

KERNELS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
"""Pillow's filters by name; all of them low-pass before they shrink."""


@dataclass(frozen=True)
class Crop:
    """The centre of an image, with an optional resize before the crop."""

    multiple: int
    """the sides are multiples of this"""
    limit: int | None = 512
    """longest side in pixels"""
    resize: int | None = None
    """shorter side in pixels after resizing; None: no resizing"""
    kernel: str = "lanczos"

    def __post_init__(self) -> None:
        """Errors: ConfigError for values that leave no pixels to evaluate."""
        least = max(SSIM_WINDOW, self.multiple)
        for name in ("limit", "resize"):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} (={value}) must be at least {least} pixels")
        if self.kernel not in KERNELS:
            raise ConfigError(f"kernel (={self.kernel}) must be one of {', '.join(KERNELS)}")

    def read(self, place: ImageRef, channels: int) -> tuple[Tensor, bool]:
        """The evaluated pixels, uint8 c h w, and whether transparency was flattened onto white.

        Errors: DataError for a broken image or one that is too small.
        """
        content = read_place(place)
        image = self._resized(open_image(content, channels))
        cropped = to_uint8(center_crop(image, self.multiple, self.limit))
        if min(cropped.shape[-2:]) < SSIM_WINDOW:
            raise DataError(f"{image.width}x{image.height} pixels, too small for SSIM's window of {SSIM_WINDOW}")
        return cropped, has_alpha(content)

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        share = self.resize / min(image.size)
        width, height = (max(self.resize, round(side * share)) for side in image.size)
        return image.resize((width, height), KERNELS[self.kernel])

    @property
    def stated(self) -> str:
        """The protocol's statement of the crop."""
        return f"central, sides multiples of {self.multiple}" + (f", at most {self.limit} px" if self.limit else "")

    @property
    def resize_stated(self) -> str:
        """The protocol's statement of resizing."""
        return "none" if self.resize is None else f"shorter side to {self.resize} px, Pillow's {self.kernel}"
