"""An image through a model and back, as evaluations measure it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.image_ref import ImageRef, open_place
from ..images import center_crop, clamped, from_model_range, to_model_range, to_uint8
from ..models import Autoencoder
from ..random_streams import NOISE, latent_noise


def read_crop(path: ImageRef | str, autoencoder: Autoencoder, limit: int | None) -> Tensor:
    """The central crop of an image with sides multiples of f and at most `limit` pixels: uint8 c h w.

    Errors: DataError for a broken image or one smaller than f.
    """
    image = open_place(path, autoencoder.config.in_channels)
    return to_uint8(center_crop(image, autoencoder.downsample_factor, limit))


@torch.inference_mode()
def reconstruct_uint8(autoencoder: Autoencoder, image: Tensor) -> Tensor:
    """One uint8 image c h w through the posterior's mode and back, rounded to uint8."""
    x = to_model_range(image[None]).to(autoencoder.device, autoencoder.dtype)
    return from_model_range(autoencoder.reconstruct(x))[0].cpu()


@torch.inference_mode()
def reconstruction(
    autoencoder: Autoencoder, image: Tensor, seed: int | None = None, number: int = 0
) -> tuple[Tensor, bool]:
    """One uint8 image c h w through the model and back to uint8, and whether the model's output was finite.

    Values that are not finite become black. seed: None takes the posterior's mode, a number a sample whose noise is a
    function of the seed and the image's number.
    """
    x = to_model_range(image[None]).to(autoencoder.device, autoencoder.dtype)
    if seed is None:
        output = autoencoder.reconstruct(x)
    else:
        posterior = autoencoder.encode(x)
        _, channels, height, width = posterior.mean.shape
        noise = latent_noise(seed, [number], (channels, height, width), NOISE)
        output = clamped(autoencoder.decode(posterior.sample(noise=noise)))
    finite = bool(torch.isfinite(output).all())
    return from_model_range(output if finite else torch.nan_to_num(output, nan=-1.0))[0].cpu(), finite
