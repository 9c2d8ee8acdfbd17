"""The command `train`: train a VAE by a recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from ..config import TrainConfig
from .console import TERMINAL
from .options import Data, arg


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="name of a recipe: see `vaeworks recipes`")],
    data: Data,
    out: Annotated[Path, arg(metavar="RUN", help="run folder; new or empty, unless --resume")],
    resume: Annotated[bool, arg(help="continue the run in --out with its settings")] = False,
    start: Annotated[
        str | None,
        arg(
            name="from",
            metavar="VAE",
            help="VAE to fine-tune: run folder, VAE file or folder, full checkpoint, hf:OWNER/NAME",
        ),
    ] = None,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Train a VAE by a recipe; every number of the recipe is an option.

    In Python: `vaeworks.train`.
    """
    from ..data.inputs import data_source
    from ..training import train as run

    if start is not None:
        config = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, path=start))
    result = run(config, data_source(data, reporter=TERMINAL), out, recipe=recipe, resume=resume)
    val = "" if result.val_psnr is None else f", {result.val_psnr:.2f} dB on held-out images"
    stats = result.latents
    TERMINAL.say(f"{out / 'model.safetensors'}: {result.images_seen:,} images in {result.seconds:.0f} s{val}")
    TERMINAL.say(
        f"latents measured on {stats.num_images:,} crops: mean {stats.shift_factor:.5f}, standard deviation "
        f"{1 / stats.scaling_factor:.5f}; the file says: {result.normalization}"
    )
    return result.to_dict()
