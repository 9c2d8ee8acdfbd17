"""Baselines of restoration: inpainting and denoising by scikit-image, and the autoencoder without a search."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...runtime import Codec
from ..codes import decode_picture, encode_picture
from .damage import Damage
from .harmonic import harmonic_fill

NLM = 0.6
"""h of non-local means as a share of the noise: the best of 0.6, 0.8 and 1 on five photographs with noise of 10, 25
and 50."""

TV = 0.85
"""Weight of total variation as a share of the noise: on the same photographs the best was between 0.7 and 1.2."""


def baselines(codec: Codec, damage: Damage) -> dict[str, Tensor]:
    """The image of every baseline, uint8 c h w, by name. Holes of a noisy image are filled by `harmonic_fill` first."""
    filled = _bytes(_filled(damage))
    if not damage.noise:
        return {"harmonic": filled, "biharmonic": biharmonic(damage)}
    code = encode_picture(codec, filled)
    return {
        "non-local means": non_local_means(damage),
        "total variation": total_variation(damage),
        "autoencoder alone": decode_picture(codec, code.mean, code.height, code.width),
    }


def first_guess(damage: Damage) -> Tensor:
    """The best classical method, uint8 c h w: biharmonic inpainting, or non-local means for a noisy image."""
    return non_local_means(damage) if damage.noise else biharmonic(damage)


def biharmonic(damage: Damage) -> Tensor:
    """Inpainting by Damelin & Hoang 2018, by scikit-image; known pixels stay."""
    from skimage.restoration import inpaint_biharmonic

    if not bool(damage.missing.any()):
        return damage.image
    picture = damage.image.numpy() / 255
    return _bytes(
        torch.from_numpy(inpaint_biharmonic(picture, damage.missing.numpy(), split_into_regions=True, channel_axis=0))
    )


def non_local_means(damage: Damage) -> Tensor:
    """Denoising by Buades et al. 2005, by scikit-image, with the known noise."""
    from skimage.restoration import denoise_nl_means

    sigma = damage.noise / 255
    picture = _filled(damage).permute(1, 2, 0).numpy()
    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": -1}
    return _bytes(torch.from_numpy(denoise_nl_means(picture, h=NLM * sigma, sigma=sigma, **options)).permute(2, 0, 1))


def total_variation(damage: Damage) -> Tensor:
    """Denoising by Chambolle 2004, by scikit-image."""
    from skimage.restoration import denoise_tv_chambolle

    picture = _filled(damage).permute(1, 2, 0).numpy()
    found = np.asarray(denoise_tv_chambolle(picture, weight=TV * damage.noise / 255, channel_axis=-1))
    return _bytes(torch.from_numpy(found).permute(2, 0, 1))


def _filled(damage: Damage) -> Tensor:
    """float64 c h w in [0,1]."""
    return harmonic_fill(damage.image.double() / 255, damage.missing)


def _bytes(picture: Tensor) -> Tensor:
    return picture.mul(255).round().clamp(0, 255).to(torch.uint8)
