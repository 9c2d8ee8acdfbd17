"""A batch of squares to the tensors that a shard keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import LatentConfig
from ..devices import DTYPES
from ..errors import NotFiniteError
from ..models import Posterior
from ..random_streams import latent_noise
from ..runtime.codec import Codec
from .plan import Settings
from .posteriors import posterior_of

LATENTS, FLIPPED, LABELS = "latents", "latents_flip", "labels"
"""Names of a shard's tensors, as in LightningDiT."""

LOGVAR = "_logvar"
"""Suffix of the tensor of log-variances; the name before it is the means'."""

MIRRORED = 2**40
"""First number of the mirrored images' noise, beyond the numbers of all images."""


def tensor_names(settings: Settings) -> list[str]:
    """Names of a shard's tensors of latents."""
    kept = [LATENTS, FLIPPED] if settings.flip else [LATENTS]
    return [name + end for name in kept for end in (("", LOGVAR) if settings.posterior == "moments" else ("",))]


def latents_shape(config: LatentConfig, size: int) -> tuple[int, int, int]:
    """c h w of the latents of squares."""
    side = size // config.downsample_factor
    return config.latent_channels, side, side


@torch.inference_mode()
def encoded(codec: Codec, squares: Tensor, numbers: list[int], settings: Settings) -> dict[str, Tensor]:
    """Latents n c h w by the name of their tensor, in the stored dtype, on the codec's device. Nothing waits for a GPU
    here.

    squares: uint8 n c size size; numbers: the images' positions in the data set, which key the noise.
    """
    device = codec.autoencoder.device
    squares = squares.to(device, non_blocking=True)
    found = _kept(posterior_of(codec.encode, squares, device), numbers, LATENTS, settings)
    if settings.flip:
        mirrored = posterior_of(codec.encode, squares.flip(-1), device)
        found |= _kept(mirrored, [MIRRORED + n for n in numbers], FLIPPED, settings)
    return {name: tensor.to(DTYPES[settings.dtype]) for name, tensor in found.items()}


def _kept(posterior: Posterior, numbers: list[int], name: str, settings: Settings) -> dict[str, Tensor]:
    mean = posterior.mean.float()
    if settings.posterior == "mode":
        return {name: mean}
    if settings.posterior == "moments":
        return {name: mean, name + LOGVAR: posterior.logvar.float()}
    if posterior.is_point:
        return {name: mean}
    _, c, h, w = mean.shape
    noise = latent_noise(settings.seed, numbers, (c, h, w))
    return {name: Posterior.of(mean, posterior.logvar.float()).sample(noise=noise)}


def check_finite(tensors: dict[str, Tensor], numbers: list[int], names: list[str], dtype: str) -> None:
    """Errors: NotFiniteError naming the first image whose latents hold NaN or infinities. names: of all images of the
    data set."""
    for name, tensor in tensors.items():
        if tensor.isfinite().all():
            continue
        first = int((~tensor.isfinite()).flatten(1).any(1).nonzero()[0])
        remedy = (
            "they are beyond fp16's 65504: take --dtype bf16 or fp32"
            if dtype == "fp16"
            else "the encoder has overflowed: `vaeworks repair` makes it fit"
        )
        raise NotFiniteError(f"{names[numbers[first]]}: its {name} hold infinities or NaN; {remedy}")
