"""Pictures for prompts: many at once, and the sheet of a run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..images import from_model_range
from ..images.labels import labelled
from ..random_streams import PAINT_SHEET, random_seed
from .conditions import OneForAll

COLUMNS = 8

BATCH = 16


@torch.no_grad()
def paint_prompts(
    pipe: Any, prompts: Sequence[str], *, size: int, guidance: float, steps: int, seed: int = 0, batch: int = BATCH
) -> Tensor:
    """A picture for each prompt: uint8 n 3 size size, on the CPU. Picture i starts from noise of (seed, i) alone.

    Values that are not numbers become gray.
    """
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    options |= {"height": size, "width": size, "output_type": "pt"}
    denoiser = getattr(pipe, "transformer", None)
    if denoiser is not None and any(isinstance(p, OneForAll) for p in denoiser.attn_processors.values()):
        options["max_sequence_length"] = 1  # the one token that stands for all
    accepted = inspect.signature(pipe.__call__).parameters
    options = {name: value for name, value in options.items() if name in accepted}
    pipe.set_progress_bar_config(disable=True)
    found = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        generators = [
            torch.Generator().manual_seed(random_seed(seed, PAINT_SHEET, start + i)) for i in range(len(part))
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            pixels = pipe(prompt=part, generator=generators, **options).images
        found.append(from_model_range(pixels.float().nan_to_num(0.5, 1.0, 0.0) * 2 - 1).cpu())
    return torch.cat(found)


def sheet(pictures: Tensor, prompts: Sequence[str], least: int = 128, title: str = "") -> Image.Image:
    """Pictures uint8 n 3 h w with their prompts above them. Small ones are enlarged by whole numbers, at least to
    `least`."""
    times = max(1, -(-least // pictures.shape[-1]))
    large = pictures.repeat_interleave(times, -1).repeat_interleave(times, -2)
    rows = [list(large[start : start + COLUMNS]) for start in range(0, len(large), COLUMNS)]
    words = [list(prompts[start : start + COLUMNS]) for start in range(0, len(prompts), COLUMNS)]
    return labelled(rows, captions=words, title=title)
