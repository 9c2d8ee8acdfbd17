"""The command `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from .console import TERMINAL
from .options import Overwrite, Told, arg, settings_of


def generate(
    pipeline: Annotated[
        Positional[str],
        arg(metavar="PIPELINE", help="diffusers folder, hub id, or tiny, tiny-sdxl, -sd3, -flux, -flux2"),
    ],
    prompt: Annotated[Positional[str], arg(metavar="PROMPT", help="description of the image")],
    out: Annotated[Path, arg(metavar="PNG", help="picture file to write")],
    vae: Annotated[
        str | None,
        arg(
            metavar="VAE",
            help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME; default: the "
            "pipeline's own",
        ),
    ] = None,
    image: Annotated[Path | None, arg(help="image to start from instead of noise")] = None,
    strength: Annotated[float, arg(help="strength of the change to --image, as a share of the steps, in (0, 1]")] = 0.6,
    size: Annotated[int | None, arg(help="side of the image in pixels; default: the pipeline's")] = None,
    steps: Annotated[int, arg(help="denoising steps")] = 20,
    guidance: Annotated[
        float | None, arg(help="guidance scale; default: that of the pipeline's training here, else 7.5")
    ] = None,
    seed: Annotated[int, arg(help="seed of the noise")] = 0,
    device: Annotated[str, arg(help="device; auto: cuda if there is a GPU, else cpu")] = "auto",
    dtype: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], arg(help="dtype of the weights; auto: bf16 on cuda, else fp32")
    ] = "auto",
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Generate an image from a prompt with this VAE inside a Stable Diffusion pipeline.

    In Python: `vaeworks.generate`.
    """
    from ..pipelines.generate import generate as run

    result = run(
        pipeline,
        prompt,
        vae,
        out,
        image=image,
        strength=strength,
        size=size,
        steps=steps,
        guidance=guidance,
        seed=seed,
        device=device,
        dtype=dtype,
        settings=settings_of(told),
        overwrite=overwrite,
    )
    TERMINAL.say(f"{out}  {result.width} x {result.height}, {result.pipeline}")
    return result.to_dict()
