"""A file with the latents of one image."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from ..config import LatentConfig
from ..errors import ConfigError, FormatError
from ..files.atomic import atomic, read_tensors, write_tensors
from ..images import check_finite
from .foreign import foreign_latents

METADATA_KEY = "vaeworks_latents"


def write_latents(
    path: Path, latents: Tensor, config: LatentConfig, size: tuple[int, int], posterior: str, overwrite: bool = True
) -> None:
    """Write unnormalized latents c h/f w/f of an image.

    size: the image's height and width in pixels. posterior: "mode" or "sample". overwrite: replace an existing file.
    Scale and shift are null in the file where the configuration only guesses them.
    Errors: NotFiniteError for latents that hold NaN or infinities.
    """
    check_finite(latents, "latents")
    scale, shift = (config.scaling_factor, config.shift_factor) if config.normalization_known else (None, None)
    facts = {
        "model": config.name,
        "height": size[0],
        "width": size[1],
        "posterior": posterior,
        "normalized": False,
        "scaling_factor": scale,
        "shift_factor": shift,
    }
    with atomic(path, overwrite) as temporary:
        write_tensors(temporary, {"latents": latents}, {METADATA_KEY: json.dumps(facts)})


def read_latents(path: Path, config: LatentConfig) -> tuple[Tensor, tuple[int, int]]:
    """The latents of one image, c h/f w/f, or of a shard, n c h/f w/f, mapped; and the (height, width) of an image.

    Errors: FormatError for a file without latents; ConfigError for latents of another kind of model.
    """
    if words := foreign_latents(path):
        raise FormatError(f"{path} {words}")
    tensors, metadata = read_tensors(path)
    if "latents" not in tensors or tensors["latents"].ndim not in (3, 4):
        raise FormatError(
            f"{path} holds no tensor `latents` of shape c h w or n c h w; `vaeworks encode` writes such files"
        )
    latents = tensors["latents"]
    try:
        facts = json.loads(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        raise FormatError(
            f"{path}: its metadata {METADATA_KEY} are not JSON; `vaeworks encode` writes such files"
        ) from None
    if not latents.numel():
        raise FormatError(f"{path} holds no latents, its tensor has the shape {tuple(latents.shape)}")
    if latents.shape[-3] != config.latent_channels or facts.get("model", config.name) != config.name:
        raise ConfigError(
            f"{path} holds latents of a model {facts.get('model', f'with {latents.shape[-3]} channels')}, this one is "
            f"{config.name}"
        )
    factor = config.downsample_factor
    return latents, (facts.get("height", latents.shape[-2] * factor), facts.get("width", latents.shape[-1] * factor))
