"""Images through an encoder: the one path from uint8 pixels to posteriors, for whatever keeps or uses latents.

The command `encode`, the doctor, the arena and the applications all come through here; what they keep of a posterior,
and where, is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..images import to_model_range
from ..models import Posterior
from ..runtime import Codec

Encode: TypeAlias = Callable[[Tensor], Posterior]
"""An encoder: images n c h w in [-1,1] to their posterior."""


def posterior_of(
    encode: Encode, squares: Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> Posterior:
    """The posterior of one batch of images, uint8 n c h w.

    device, dtype: of the images that `encode` is called with. Pixels become floats on the device where they are.
    """
    return encode(to_model_range(squares).to(device, dtype))


def encode_batches(
    encode: Encode,
    batches: Iterable[Tensor],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    spread: Literal["std", "logvar"] = "std",
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Means and standard deviations (or log-variances) of every batch of images: float32 n c h w each, on the CPU.

    batches, device, dtype: as in `posterior_of`. The second tensor is None where latents are points.
    """
    for squares in batches:
        posterior = posterior_of(encode, squares, device, dtype)
        second = None if posterior.is_point else getattr(posterior, spread).float().cpu()
        yield posterior.mean.float().cpu(), second


def picture_posterior(codec: Codec, image: Tensor) -> Posterior:
    """The posterior of one image uint8 c h w of any size, padded to a multiple of f.

    Errors: those of `Codec.encode`.
    """
    return posterior_of(lambda images: codec.encode(images, pad=True), image[None], codec.autoencoder.device)
