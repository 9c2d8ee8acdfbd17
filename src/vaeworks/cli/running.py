"""Commands that run a VAE: reconstruct, encode, decode, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..errors import ConfigError
from .inputs import files_ending, image_files, loaded, opened, readable_images, targets
from .options import Inputs, Model, Out, Overwrite
from .show import console


def reconstruct(model: Model, inputs: Inputs, out: Out, overwrite: Overwrite = False) -> dict[str, Any]:
    """Images through the VAE and back, as PNG files of the same size."""
    from ..formats.files import write_picture
    from ..images import to_pillow, to_uint8
    from ..metrics import psnr
    from ..metrics.evaluate import reconstruct_uint8

    autoencoder = loaded(model)
    rows: dict[str, Any] = {}
    pairs = targets(image_files(inputs), out, ".png", overwrite)
    for path, target, picture in readable_images(pairs, autoencoder.config.in_channels):
        image = to_uint8(picture)
        recon = reconstruct_uint8(autoencoder, image)
        write_picture(target, to_pillow(recon))
        rows[str(target)] = {"source": str(path), "psnr": psnr(image, recon)}
        console().print(f"{target}  {rows[str(target)]['psnr']:.2f} dB")
    return rows


def encode(
    model: Model,
    inputs: Inputs,
    out: Out,
    posterior: Annotated[Literal["mode", "sample"], arg(help="which latents of the posterior")] = "mode",
    seed: Annotated[int, arg(help="of --posterior sample")] = 0,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Images to latents: one safetensors file each, `latents` c h/f w/f, unnormalized."""
    import torch

    from ..formats.latents import write_latents
    from ..images import to_model_range, to_uint8

    autoencoder = loaded(model)
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, Any] = {}
    for path, target, picture in readable_images(
        targets(image_files(inputs), out, ".safetensors", overwrite), autoencoder.config.in_channels
    ):
        image = to_uint8(picture)
        with torch.inference_mode():
            found = autoencoder.encode(to_model_range(image[None]).to(autoencoder.dtype), pad=True)
            latents = (found.mode() if posterior == "mode" else found.sample(generator))[0]
        write_latents(target, latents, autoencoder.config, (image.shape[-2], image.shape[-1]), posterior)
        rows[str(target)] = {"source": str(path), "shape": list(latents.shape)}
        console().print(f"{target}  {' x '.join(map(str, latents.shape))}")
    return rows


def decode(model: Model, inputs: Inputs, out: Out, overwrite: Overwrite = False) -> dict[str, Any]:
    """Latents from `encode` to PNG files."""
    import torch

    from ..formats.files import write_picture
    from ..formats.latents import read_latents
    from ..images import crop_to, from_model_range, to_pillow

    autoencoder = loaded(model)
    rows = {}
    for path, target in targets(files_ending(inputs, ".safetensors"), out, ".png", overwrite):
        latents, (height, width) = read_latents(path, autoencoder.config)
        with torch.inference_mode():
            image = crop_to(from_model_range(autoencoder.decode(latents[None].to(autoencoder.dtype)))[0], height, width)
        write_picture(target, to_pillow(image))
        rows[str(target)] = {"source": str(path), "shape": list(image.shape)}
        console().print(f"{target}  {width} x {height}")
    return rows


def generate(
    pipeline: Annotated[Positional[str], arg(metavar="PIPELINE", help="diffusers folder, hub id, or tiny, tiny-sdxl, -sd3, -flux, -flux2")],
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
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Paint from a prompt with this VAE inside a Stable Diffusion pipeline. `tiny` is built offline with random weights."""
    import torch

    from ..formats import load
    from ..formats.files import picture_kind, write_picture
    from ..formats.pipelines import load_pipeline, paint
    from ..train.precision import resolve_device

    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} exists; choose another --out" + ("" if out.is_dir() else ", or pass --overwrite"))
    picture_kind(out)  # before the work, not after it
    start = None if image is None else opened(image, 3)
    on = resolve_device(device)
    kind = {"auto": "bf16" if on.type == "cuda" else "fp32"}.get(dtype, dtype)
    weights = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    pipe = load_pipeline(pipeline, load(vae), on, weights)
    picture = paint(pipe, prompt, image=start, strength=strength, size=size, steps=steps, guidance=guidance, seed=seed)
    write_picture(out, picture)
    console().print(f"{out}  {picture.width} x {picture.height}, {type(pipe).__name__}")
    return {"out": str(out), "pipeline": type(pipe).__name__, "width": picture.width, "height": picture.height, "seed": seed}
