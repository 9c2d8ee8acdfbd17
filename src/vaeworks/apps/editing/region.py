"""Edit an image through its latents, everywhere or within a mask."""

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
"""A function from latents c h w to changed latents."""


@dataclass(frozen=True, eq=False)
class Edited:
    """An edited image, and how much it changed."""

    image: Tensor
    """uint8 c h w"""
    inside: float
    """mean absolute change in gray levels, inside the mask or everywhere"""
    outside: float
    """mean absolute change outside the mask; nan without a mask"""
    reconstruction: float
    """PSNR in dB of the image through the autoencoder without an edit: the loss that is not due to the edit"""


def edit_picture(
    codec: Codec, image: Tensor, changes: Sequence[Change], mask: Tensor | None = None, *, detail: bool = True
) -> Edited:
    """Apply changes to the latents of an image uint8 c h w, in order, and decode.

    mask: bool h w, true where to edit. Latents change by the share of their f x f pixels in the mask. Pixels outside
    stay exactly equal; inside, the edit fades in over f pixels from the mask's border. detail: add the edit's change of
    the decoded image to the original, instead of showing the decoded image, so that details that the autoencoder loses
    stay.
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
    """Errors: ConfigError for a mask h w of another size than the image, or without any marked pixel."""
    if mask.shape != image.shape[-2:]:
        raise ConfigError(
            f"the mask has {mask.shape[-1]} x {mask.shape[-2]} pixels, the picture {image.shape[-1]} x "
            f"{image.shape[-2]}; both need one size"
        )
    if not bool(mask.any()):
        raise ConfigError("the mask marks nothing; paint the region to edit white")


def latent_weights(mask: Tensor, f: int) -> Tensor:
    """The share of each latent's pixels in the mask: ceil(h/f) ceil(w/f), 0..1."""
    return F.avg_pool2d(pad_to_multiple(mask[None, None].float(), f), f)[0, 0]


def composed(original: Tensor, edited: Tensor, mask: Tensor, width: int) -> Tensor:
    """Blend to uint8 c h w: the original outside the mask, the edited image `width` pixels or more inside, linear in
    between."""
    from scipy.ndimage import distance_transform_edt

    if bool(mask.all()):
        return edited
    alpha = torch.from_numpy(distance_transform_edt(mask.numpy())).float().div(width).clamp(0, 1)
    return (original.float() + alpha * (edited.float() - original.float())).round().to(torch.uint8)
