"""From a prompt to a picture file, with any VAE inside a Stable Diffusion pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..data.inputs import opened
from ..devices import resolve_device, torch_dtype
from ..errors import ConfigError
from ..files.atomic import check_free_picture, write_picture
from ..formats import load
from ..formats.shared_weights import in_memory
from ..images.channels import PICTURES, check_pictures
from ..models import Autoencoder
from .stable_diffusion import guidance_of, load_pipeline, paint
from .tiny import TINY


@dataclass(frozen=True)
class GeneratedImage:
    """What `generate` made."""

    picture: Image.Image = field(repr=False, compare=False)
    out: str | None
    """the file that was written"""
    pipeline: str
    """name of the pipeline's class"""
    width: int
    height: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture, for JSON."""
        names = ("out", "pipeline", "width", "height", "seed")
        return {name: getattr(self, name) for name in names}


def generate(
    pipeline: str,
    prompt: str,
    vae: str | Path | Autoencoder | None = None,
    out: str | Path | None = None,
    *,
    image: str | Path | Image.Image | None = None,
    strength: float = 0.6,
    size: int | None = None,
    steps: int = 20,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> GeneratedImage:
    """Generate an image from a prompt with this VAE inside a Stable Diffusion pipeline.

    >>> vw.generate("tiny", "a dog on a beach", vae="runs/dogs", out="dog.png").picture

    pipeline: a diffusers folder, a hub id, or "tiny", "tiny-sdxl", "tiny-sd3", "tiny-flux", "tiny-flux2", which are
    built offline with random weights. vae: an Autoencoder, or the path or hub id of one; None: the pipeline's own. out:
    the picture file to write; None writes nothing. image: an image to start from instead of noise. strength: the share
    of the steps that is run on `image`, in (0, 1]. size: side in pixels; None: the pipeline's own. steps: denoising
    steps. guidance: classifier-free guidance scale; None: that of its training for a pipeline trained here, else 7.5.
    device: "auto" is cuda if there is a GPU. dtype: "fp32", "bf16", "fp16" or a torch dtype; "auto" is bf16 on cuda and
    fp32 elsewhere. settings: facts that the VAE's file leaves out, as keywords of `load`.
    Errors: those of `load`, `load_pipeline` and `paint`; ConfigError without `overwrite` for a name that is taken.
    """
    if out is not None:
        check_free_picture(Path(out), overwrite)
    start = opened(Path(image), 3) if isinstance(image, (str, Path)) else image
    on = resolve_device(device)
    weights = torch_dtype(("bf16" if on.type == "cuda" else "fp32") if dtype == "auto" else dtype)
    autoencoder = None if vae is None else in_memory(vae) or load(str(vae), **(settings or {}))
    if autoencoder is None and pipeline in TINY:
        raise ConfigError(f"pipeline {pipeline!r} has no VAE of its own; give it one: --vae VAE")
    if autoencoder is not None:
        check_pictures(autoencoder.config, channels=PICTURES)
    scale = guidance_of(pipeline) if guidance is None else guidance
    pipe = load_pipeline(pipeline, autoencoder, on, weights)
    picture = paint(pipe, prompt, image=start, strength=strength, size=size, steps=steps, guidance=scale, seed=seed)
    if out is not None:
        write_picture(Path(out), picture, overwrite)
    written = None if out is None else str(out)
    return GeneratedImage(picture, written, type(pipe).__name__, picture.width, picture.height, seed)
