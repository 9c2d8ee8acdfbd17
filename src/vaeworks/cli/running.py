"""The command that paints with a VAE inside a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..data.inputs import opened
from ..errors import ConfigError
from .console import console
from .options import Overwrite, Told, settings_of


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
