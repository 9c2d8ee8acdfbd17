"""An edit from picture to picture, within a mask or everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ...images import from_model_range, pad_to_multiple, to_model_range
from ...metrics import psnr
from ...runtime import Codec
from ..codes import decode_picture, encode_picture

Change = Callable[[Tensor], Tensor]
"""Latents c h w to others."""


@dataclass(frozen=True, eq=False)
class Edited:
    """An edited picture, and how much has changed."""

    image: Tensor
    """uint8 c h w"""
    inside: float
    """mean absolute change in gray levels, inside the mask or everywhere"""
    outside: float
    """outside the mask; nan where there is none"""
    reconstruction: float
    """PSNR in dB of the picture through the autoencoder without an edit: what is below it was lost on the way, not
    edited"""


def edit_picture(
    codec: Codec, image: Tensor, changes: Sequence[Change], mask: Tensor | None = None, *, detail: bool = True
) -> Edited:
    """A picture uint8 c h w with changes of its latents, in this order.

    mask: bool h w, where it is edited: latents are changed by the share of their f x f pixels that it holds, pixels
    outside stay exactly, and inside the edit comes in over f pixels from the mask's border. detail: add what the edit
    changes in the decoded picture to the original, instead of showing the decoded picture: what the autoencoder cannot
    carry stays.
    Errors: ConfigError for a mask of another size.
    """
    if mask is not None:
        check_mask(mask, image)
    f = codec.autoencoder.downsample_factor
    code = encode_picture(codec, image)
    z = code.mean
    for change in changes:
        z = change(z)
    if mask is not None:
        z = code.mean + latent_weights(mask, f) * (z - code.mean)
    plain, edited = (decode_picture(codec, latents, code.height, code.width) for latents in (code.mean, z))
    result = (
        from_model_range(to_model_range(image) + to_model_range(edited) - to_model_range(plain)) if detail else edited
    )
    result = result if mask is None else composed(image, result, mask, f)
    change_of = (result.float() - image.float()).abs().mean(0)
    inside = torch.ones_like(change_of, dtype=torch.bool) if mask is None else mask
    return Edited(result, float(change_of[inside].mean()), float(change_of[~inside].mean()), psnr(image, plain))


def check_mask(mask: Tensor, image: Tensor) -> None:
    """Errors: ConfigError for a mask h w of another size than the picture's, or that marks nothing."""
    if mask.shape != image.shape[-2:]:
        raise ConfigError(
            f"the mask has {mask.shape[-1]} x {mask.shape[-2]} pixels, the picture {image.shape[-1]} x "
            f"{image.shape[-2]}; they must be alike"
        )
    if not bool(mask.any()):
        raise ConfigError("the mask marks nothing; what is to be changed must be white in it")


def latent_weights(mask: Tensor, f: int) -> Tensor:
    """The share of every latent's pixels that a mask holds: ceil(h/f) ceil(w/f), 0..1."""
    return F.avg_pool2d(pad_to_multiple(mask[None, None].float(), f), f)[0, 0]


def composed(original: Tensor, edited: Tensor, mask: Tensor, width: int) -> Tensor:
    """uint8 c h w: the original outside the mask, the edited picture `width` pixels inside of it, and a linear blend
    between."""
    from scipy.ndimage import distance_transform_edt

    if bool(mask.all()):
        return edited
    alpha = torch.from_numpy(distance_transform_edt(mask.numpy())).float().div(width).clamp(0, 1)
    return (original.float() + alpha * (edited.float() - original.float())).round().to(torch.uint8)
