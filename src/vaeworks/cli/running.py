"""Commands that run a VAE: reconstruct, decode, generate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..config import TinyConfig
from ..data.inputs import files_ending, image_files, opened, readable_images
from ..errors import ConfigError
from ..files.outputs import make_folder, targets
from .console import TERMINAL, console
from .options import Inputs, Memory, Model, Out, Overwrite, Precision, Told, Verify, settings_of
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


def generate(
    pipeline: Annotated[
        Positional[str],
        arg(metavar="PIPELINE", help="diffusers folder, hub id, or tiny, tiny-sdxl, -sd3, -flux, -flux2"),
    ],
    prompt: Annotated[Positional[str], arg(metavar="PROMPT")],
    vae: Annotated[str, arg(metavar="VAE", help="as MODEL elsewhere")],
    out: Annotated[Path, arg(metavar="PNG")],
    image: Annotated[Path | None, arg(help="start from this image instead of noise")] = None,
    strength: Annotated[float, arg(help="how much of --image is painted over, in (0, 1]")] = 0.6,
    size: Annotated[int | None, arg(help="side of the picture in pixels; default: the pipeline's")] = None,
    steps: Annotated[int, arg(help="denoising steps")] = 20,
    guidance: Annotated[float, arg(help="guidance scale")] = 7.5,
    seed: Annotated[int, arg(help="of the noise")] = 0,
    device: Annotated[str, arg(help="auto: cuda where there is one, else cpu")] = "auto",
    dtype: Annotated[Literal["auto", "fp32", "bf16", "fp16"], arg(help="auto: bf16 on cuda, else fp32")] = "auto",
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Paint from a prompt with this VAE inside a Stable Diffusion pipeline. `tiny` is built offline with random
    weights."""
    import torch

    from ..devices import resolve_device
    from ..files.atomic import picture_kind, write_picture
    from ..formats import load
    from ..pipelines.stable_diffusion import load_pipeline, paint

    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} exists; choose another --out" + ("" if out.is_dir() else ", or pass --overwrite"))
    picture_kind(out)  # before the work, not after it
    start = None if image is None else opened(image, 3)
    on = resolve_device(device)
    kind = {"auto": "bf16" if on.type == "cuda" else "fp32"}.get(dtype, dtype)
    weights = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    pipe = load_pipeline(pipeline, load(vae, **settings_of(told)), on, weights)
    picture = paint(pipe, prompt, image=start, strength=strength, size=size, steps=steps, guidance=guidance, seed=seed)
    write_picture(out, picture, overwrite)
    console().print(f"{out}  {picture.width} x {picture.height}, {type(pipe).__name__}")
    return {
        "out": str(out),
        "pipeline": type(pipe).__name__,
        "width": picture.width,
        "height": picture.height,
        "seed": seed,
    }
