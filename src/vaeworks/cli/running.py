"""Commands that run a VAE: reconstruct, decode."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TinyConfig
from ..data.inputs import files_ending, image_files, readable_images
from ..errors import ConfigError
from ..files.outputs import make_folder, targets
from .console import TERMINAL, console
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, Verify
from .paths import codec

if TYPE_CHECKING:
    from torch import Tensor


def reconstruct(
    model: Model,
    inputs: Inputs,
    out: Out,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Images through the VAE and back, as PNG files of the same size."""
    from ..files.atomic import write_picture
    from ..images import from_model_range, to_model_range, to_pillow, to_uint8
    from ..metrics import psnr

    sources = image_files(inputs, TERMINAL)
    through = codec(model, memory, precision, told)
    rows: dict[str, Any] = {}
    pairs = targets(sources, out, ".png", overwrite)
    for path, target, picture in readable_images(pairs, through.autoencoder.config.in_channels, TERMINAL):
        image = to_uint8(picture)
        recon = from_model_range(through.reconstruct(to_model_range(image[None])).float())[0].cpu()
        write_picture(target, to_pillow(recon), overwrite)
        rows[str(target)] = {"source": str(path), "psnr": psnr(image, recon)}
        console().print(f"{target}  {rows[str(target)]['psnr']:.2f} dB")
    return rows


def decode(
    model: Model,
    inputs: Inputs,
    out: Out,
    memory: Memory = None,
    precision: Precision = None,
    verify: Verify = False,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Latents from `encode`, files or shards, to PNG files; of any size within a memory budget (docs/runtime.md)."""
    from ..files.atomic import write_picture
    from ..images import crop_to, from_model_range, to_pillow
    from ..latents.image_file import read_latents

    sources = files_ending(inputs, ".safetensors")
    through = codec(model, memory, precision, told)
    rows: dict[str, Any] = {}
    for path, target in targets(sources, out, ".png", overwrite):
        found, (height, width) = read_latents(path, through.autoencoder.config)
        shape = found.shape[-3:]
        if not isinstance(through.autoencoder.config, TinyConfig):
            console().print(f"{path}: {through.plan_decode(1, *shape).sentence}", style="dim")
        if verify:
            certificate = through.verify(found.reshape(-1, *shape)[:1])
            console().print(certificate.sentence)
        for place, latents in _each(target, found):
            if place.exists() and not overwrite:
                raise ConfigError(f"{place} exists; choose another --out, or pass --overwrite")
            try:
                decoded = through.decode(latents[None])
            except ConfigError as error:
                raise type(error)(f"{path}: {error}") from None
            image = crop_to(from_model_range(decoded.float())[0].cpu(), height, width)
            write_picture(place, to_pillow(image), overwrite)
            rows[str(place)] = {"source": str(path), "shape": list(image.shape)}
            rows[str(place)] |= {"certificate": dataclasses.asdict(certificate)} if verify else {}
            console().print(f"{place}  {width} x {height}")
    return rows


def _each(target: Path, latents: Tensor) -> Iterator[tuple[Path, Tensor]]:
    """A picture's place and its latents c h w; a shard's n c h w become a folder of numbered pictures."""
    if latents.ndim == 3:
        yield target, latents
        return
    make_folder(target.with_suffix(""))
    for number, one in enumerate(latents):
        yield target.with_suffix("") / f"{number:06}.png", one
