"""Transformations of images and latents alike: smaller, turned, mirrored, shifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Transform = Callable[[Tensor], Tensor]

SCALES: Mapping[str, int] = {"scale_1/2": 2, "scale_1/4": 4}
"""Factors by which images and latents become smaller."""

TURNS: Mapping[str, Transform] = {
    "rot_90": lambda x: x.rot90(1, (-2, -1)),
    "rot_180": lambda x: x.rot90(2, (-2, -1)),
    "rot_270": lambda x: x.rot90(3, (-2, -1)),
    "hflip": lambda x: x.flip(-1),
    "vflip": lambda x: x.flip(-2),
}
"""Turns and mirrors, which are exact on any square grid."""

SHIFTS: Mapping[str, float] = {"crop": 0.0, "shift_1": 1.0, "shift_1/2": 0.5, "shift_1/4": 0.25}
"""Shifts along both sides, in latents (f pixels)."""


def smaller(x: Tensor, factor: int) -> Tensor:
    """n c h w made smaller by averaging squares of factor x factor: little aliasing, and no kernel to choose."""
    return F.avg_pool2d(x, factor)


def shifted_image(images: Tensor, shift: float, f: int) -> Tensor:
    """The part of images n c H W that begins `shift` * f pixels further, smaller by f on both sides whatever the
    shift."""
    at, h, w = round(shift * f), images.shape[-2] - f, images.shape[-1] - f
    return images[..., at : at + h, at : at + w]


def shifted_latents(z: Tensor, shift: float) -> Tensor:
    """The same part of latents n c h w, smaller by one on both sides; fractions bilinearly, shift in 0..1."""
    z = torch.lerp(z[..., :-1, :], z[..., 1:, :], shift)
    return torch.lerp(z[..., :-1], z[..., 1:], shift)


def inner(x: Tensor, margin: int) -> Tensor:
    """n c h w without `margin` at each border."""
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin] if margin else x
