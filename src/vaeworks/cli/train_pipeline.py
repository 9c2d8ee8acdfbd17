"""The command `train-pipeline`: train a denoiser for the latents of a VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ..config import PaintConfig
from .console import TERMINAL
from .options import Data, arg


def train_pipeline(
    vae: Annotated[
        str, arg(metavar="VAE", help="run folder, VAE file or folder of any layout, full checkpoint, hf:OWNER/NAME")
    ],
    data: Data,
    out: Annotated[Path, arg(metavar="PIPELINE", help="folder for the pipeline; new or empty, unless --resume")],
    recipe: Annotated[str, arg(metavar="NAME", help="paint-tiny, paint-small or sd1")] = "paint-tiny",
    start: Annotated[
        str | None,
        arg(name="from", metavar="PIPELINE", help="pipeline to move to this VAE's latents: diffusers folder, hub id"),
    ] = None,
    caption: Annotated[
        str | None,
        arg(metavar="TEMPLATE", help='caption of a class of images, such as "a photo of a {}"'),
    ] = None,
    column: Annotated[
        str | None, arg(metavar="NAME", help="column of captions, in data sets that have several")
    ] = None,
    resume: Annotated[bool, arg(help="continue the run in --out with its settings")] = False,
    config: Annotated[PaintConfig, arg(name="")] = PaintConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Train a small Stable Diffusion for a VAE's latents on captioned images, or move a pipeline there.

    In Python: `vaeworks.train_pipeline`.
    """
    from ..data.inputs import data_source
    from ..painting import train_pipeline as run

    source = data_source(data, reporter=TERMINAL)
    result = run(config, vae, source, out, start=start, caption=caption, column=column, resume=resume, name=recipe)
    held = "" if result.held_out_loss is None else f", loss of held-out images {result.held_out_loss:.4g}"
    TERMINAL.say(f"{out}: {result.kind}, {result.images_seen:,} images in {result.seconds:.0f} s{held}")
    TERMINAL.say(f'paint: vaeworks generate {out} "{result.prompts[0]}" --out painted.png')
    return result.to_dict()
